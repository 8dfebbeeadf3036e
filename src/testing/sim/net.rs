//! The modelled network: full-duplex links, each shared equally by what goes through it.
//!
//! A transfer's rate is the smaller share of its two ends, computed anew when a transfer there starts or
//! ends. That is less than TCP would make of it: what one end cannot use goes to nobody.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Simulated time in nanoseconds.
pub type Nanos = u64;

/// What happens next, in the order of time and of scheduling.
pub struct Agenda<E> {
    events: BinaryHeap<Reverse<(Nanos, u64, Slot)>>,
    pending: Vec<Option<E>>,
    free: Vec<Slot>,
    count: u64,
    pub now: Nanos,
}

type Slot = usize;

impl<E> Agenda<E> {
    pub fn new() -> Agenda<E> {
        Agenda {
            events: BinaryHeap::new(),
            pending: Vec::new(),
            free: Vec::new(),
            count: 0,
            now: 0,
        }
    }

    pub fn after(&mut self, delay: Nanos, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            self.pending.len() - 1
        });
        self.pending[slot] = Some(event);
        self.count += 1;
        self.events
            .push(Reverse((self.now + delay, self.count, slot)));
    }

    /// The next event; the clock stands at its time then.
    pub fn next(&mut self) -> Option<E> {
        let Reverse((at, _, slot)) = self.events.pop()?;
        self.now = at;
        self.free.push(slot);
        self.pending[slot].take()
    }
}

pub type TransferId = usize;

/// A piece on its way.
struct Transfer {
    from: usize,
    to: usize,
    bytes_left: f64,
    bytes_per_ns: f64,
    since: Nanos,
    /// Tells the latest expected end from those before.
    version: u32,
}

/// An end of transfers that has changed: when it is to be looked at.
pub struct Due {
    pub transfer: TransferId,
    pub version: u32,
    pub after: Nanos,
}

pub struct Net {
    bytes_per_ns: Vec<f64>,
    up: Vec<Vec<TransferId>>,
    down: Vec<Vec<TransferId>>,
    transfers: Vec<Option<Transfer>>,
    free: Vec<TransferId>,
}

impl Net {
    /// Links of these rates, the same up as down.
    pub fn new(bytes_per_ns: Vec<f64>) -> Net {
        let links = bytes_per_ns.len();
        Net {
            bytes_per_ns,
            up: vec![Vec::new(); links],
            down: vec![Vec::new(); links],
            transfers: Vec::new(),
            free: Vec::new(),
        }
    }

    pub fn start(
        &mut self,
        from: usize,
        to: usize,
        bytes: f64,
        now: Nanos,
        due: &mut Vec<Due>,
    ) -> TransferId {
        let transfer = Transfer {
            from,
            to,
            bytes_left: bytes,
            bytes_per_ns: 0.0,
            since: now,
            version: 0,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.transfers.push(None);
            self.transfers.len() - 1
        });
        self.transfers[id] = Some(transfer);
        self.up[from].push(id);
        self.down[to].push(id);
        self.share(from, to, now, due);
        id
    }

    /// Whether the transfer has brought all its bytes, or the event is of a rate that has changed since.
    pub fn is_here(&self, id: TransferId, version: u32) -> bool {
        self.transfers[id]
            .as_ref()
            .is_some_and(|transfer| transfer.version == version)
    }

    /// The next piece of a run follows on the same transfer.
    pub fn go_on(&mut self, id: TransferId, bytes: f64, now: Nanos) -> Option<Due> {
        let transfer = self.transfers[id].as_mut()?;
        (transfer.bytes_left, transfer.since) = (bytes, now);
        transfer.version += 1;
        Some(transfer.due(id))
    }

    pub fn end(&mut self, id: TransferId, now: Nanos, due: &mut Vec<Due>) {
        let Some(transfer) = self.transfers[id].take() else {
            return;
        };
        self.up[transfer.from].retain(|other| *other != id);
        self.down[transfer.to].retain(|other| *other != id);
        self.free.push(id);
        self.share(transfer.from, transfer.to, now, due);
    }

    fn share(&mut self, from: usize, to: usize, now: Nanos, due: &mut Vec<Due>) {
        let touched = self.up[from].iter().chain(&self.down[to]);
        let mut touched: Vec<_> = touched.copied().collect();
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            let Some(transfer) = self.transfers[id].as_mut() else {
                continue;
            };
            let up = self.bytes_per_ns[transfer.from] / self.up[transfer.from].len() as f64;
            let down = self.bytes_per_ns[transfer.to] / self.down[transfer.to].len() as f64;
            if transfer.run_at(up.min(down), now) {
                due.push(transfer.due(id));
            }
        }
    }
}

impl Transfer {
    /// True when that changes its end.
    fn run_at(&mut self, bytes_per_ns: f64, now: Nanos) -> bool {
        if self.bytes_per_ns == bytes_per_ns {
            return false;
        }
        self.bytes_left -= self.bytes_per_ns * (now - self.since) as f64;
        self.since = now;
        self.bytes_per_ns = bytes_per_ns;
        self.version += 1;
        true
    }

    fn due(&self, id: TransferId) -> Due {
        let after = (self.bytes_left / self.bytes_per_ns).max(0.0).ceil() as Nanos;
        Due {
            transfer: id,
            version: self.version,
            after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_share_both_ends_and_speed_up_when_others_end() {
        let (mut net, mut due) = (Net::new(vec![1.0, 1.0, 1.0]), Vec::new());
        let first = net.start(0, 1, 100.0, 0, &mut due);
        assert_eq!(due.pop().map(|due| due.after), Some(100));
        let second = net.start(0, 2, 100.0, 50, &mut due);
        // The first has 50 bytes left at half the rate, the second 100.
        let ends: Vec<_> = due
            .drain(..)
            .map(|due| {
                (
                    due.transfer,
                    due.after,
                    net.is_here(due.transfer, due.version),
                )
            })
            .collect();
        assert_eq!(ends, [(first, 100, true), (second, 200, true)]);
        net.end(first, 150, &mut due);
        assert_eq!(
            due.iter().map(|due| due.after).collect::<Vec<_>>(),
            [50],
            "50 bytes at full rate"
        );
        assert!(!net.is_here(first, 2));
    }

    #[test]
    fn events_come_in_the_order_of_time_then_of_scheduling() {
        let mut agenda = Agenda::new();
        [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')]
            .into_iter()
            .for_each(|(delay, event)| agenda.after(delay, event));
        let order: String = std::iter::from_fn(|| agenda.next()).collect();
        assert_eq!((order.as_str(), agenda.now), ("abcd", 5));
    }
}
