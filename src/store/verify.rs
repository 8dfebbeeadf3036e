//! What lets a data file be believed without hashing it: the same boot, and a file nobody touched since.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;

/// Boot, inode, size and change time of a data file when it was found complete. An equal stamp later means
/// that the bytes are the ones that were hashed: every write moves the change time, and a reboot, after
/// which unsynced pages may be lost, changes the boot id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp([u8; 64]);

/// The kernel's id of this boot; where there is none no stamp ever matches.
static BOOT_ID: LazyLock<[u8; 16]> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut id = [0; 16];
    match hex::decode_to_slice(text.trim().replace('-', ""), &mut id) {
        Ok(()) => id,
        Err(_) => rand::random(),
    }
});

impl Stamp {
    /// The stamp of an open file as it is now.
    pub fn of(file: &std::fs::File) -> io::Result<Stamp> {
        let meta = file.metadata()?;
        let mut bytes = [0; 64];
        bytes[..16].copy_from_slice(&*BOOT_ID);
        let numbers = [
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.ctime() as u64,
            meta.ctime_nsec() as u64,
        ];
        for (place, number) in bytes[16..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        Ok(Stamp(bytes))
    }

    pub fn to_bytes(&self) -> [u8; 64] {
        self.0
    }
}
