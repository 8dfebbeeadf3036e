//! A set of pieces as bits: piece 0 is the lowest bit of byte 0.

/// A fixed-length set of piece indices. A 16 GiB file has 16,384 pieces, 2 KiB of bits.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Bitfield {
    bytes: Vec<u8>,
    len: u32,
}

impl Bitfield {
    /// The empty set over `len` pieces.
    pub fn new(len: u32) -> Bitfield {
        Bitfield {
            bytes: vec![0; len.div_ceil(8) as usize],
            len,
        }
    }

    /// The set of all `len` pieces.
    pub fn full(len: u32) -> Bitfield {
        let mut all = Bitfield {
            bytes: vec![0xff; len.div_ceil(8) as usize],
            len,
        };
        all.clear_tail();
        all
    }

    /// Reads a set from the wire. `None` when `bytes` is not exactly the length that `len` pieces take.
    pub fn from_bytes(bytes: Vec<u8>, len: u32) -> Option<Bitfield> {
        if bytes.len() != len.div_ceil(8) as usize {
            return None;
        }
        let mut field = Bitfield { bytes, len };
        field.clear_tail();
        Some(field)
    }

    /// Bits past the end would count as pieces that do not exist.
    fn clear_tail(&mut self) {
        let used = self.len % 8;
        if used != 0
            && let Some(last) = self.bytes.last_mut()
        {
            *last &= (1u8 << used) - 1;
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many pieces the set is over, not how many are in it.
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    /// Whether `index` is in the set; an index out of range is in no set.
    pub fn get(&self, index: u32) -> bool {
        index < self.len && self.bytes[index as usize / 8] & (1 << (index % 8)) != 0
    }

    /// Puts `index` in or takes it out; out of range is ignored, for indices also come from the wire.
    pub fn set(&mut self, index: u32, value: bool) {
        if index >= self.len {
            return;
        }
        let bit = 1 << (index % 8);
        let byte = &mut self.bytes[index as usize / 8];
        if value { *byte |= bit } else { *byte &= !bit }
    }

    pub fn count(&self) -> u32 {
        self.bytes.iter().map(|byte| byte.count_ones()).sum()
    }

    pub fn is_full(&self) -> bool {
        self.count() == self.len
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte != 0)
            .flat_map(|(at, byte)| {
                (0..8)
                    .filter(move |bit| byte & (1 << bit) != 0)
                    .map(move |bit| at as u32 * 8 + bit)
            })
    }

    /// The members of `self` that are not in `other`; both are over the same pieces.
    pub fn minus(&self, other: &Bitfield) -> Bitfield {
        self.combine(other, |a, b| a & !b)
    }

    /// The members of both.
    pub fn and(&self, other: &Bitfield) -> Bitfield {
        self.combine(other, |a, b| a & b)
    }

    /// The pieces that are not in the set.
    pub fn not(&self) -> Bitfield {
        Bitfield::full(self.len).minus(self)
    }

    /// Puts the members of `other` in as well.
    pub fn add(&mut self, other: &Bitfield) {
        debug_assert_eq!(self.len, other.len);
        let bytes = self.bytes.iter_mut().zip(&other.bytes);
        bytes.for_each(|(to, from)| *to |= from);
    }

    fn combine(&self, other: &Bitfield, op: impl Fn(u8, u8) -> u8) -> Bitfield {
        debug_assert_eq!(self.len, other.len);
        let bytes = self
            .bytes
            .iter()
            .zip(&other.bytes)
            .map(|(a, b)| op(*a, *b))
            .collect();
        Bitfield {
            bytes,
            len: self.len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(len in 1u32..200, adds in prop::collection::vec(0u32..220, 0..60)) {
            let mut field = Bitfield::new(len);
            let mut set = BTreeSet::new();
            for index in adds {
                field.set(index, true);
                if index < len { set.insert(index); }
            }
            prop_assert_eq!(field.iter().collect::<BTreeSet<_>>(), set.clone());
            prop_assert_eq!(field.count() as usize, set.len());
            prop_assert_eq!(field.not().count() as usize, len as usize - set.len());
            prop_assert_eq!(Bitfield::from_bytes(field.as_bytes().to_vec(), len), Some(field.clone()));
            prop_assert!(field.and(&field.not()).is_empty());
            let mut all = field.not();
            all.add(&field);
            prop_assert!(all.is_full());
        }
    }

    #[test]
    fn a_wrong_length_and_stray_bits_are_refused() {
        assert!(Bitfield::from_bytes(vec![0; 2], 8).is_none());
        assert_eq!(
            Bitfield::from_bytes(vec![0xff], 3).map(|field| field.count()),
            Some(3)
        );
        assert!(Bitfield::full(9).is_full());
    }
}
