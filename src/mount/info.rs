//! The kernel's mount table, `/proc/self/mountinfo`.

use super::MountError;
use std::path::{Path, PathBuf};

/// The type under which our mounts stand in the table.
pub const FSTYPE: &str = "fuse.model-p2p";

const TABLE: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLine {
    /// Names the superblock: bind mounts share it with what they show.
    pub device: (u32, u32),
    pub point: PathBuf,
    pub fstype: String,
}

/// Every mount of this namespace, in the order they were made: of two on one point the later is on top.
pub fn mounts() -> Result<Vec<MountLine>, MountError> {
    let text = std::fs::read(TABLE);
    let text =
        text.map_err(|source| MountError::io("read the mount table", TABLE.as_ref(), source))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// What is mounted on `point` itself, the top one.
pub fn on(point: &Path) -> Result<Option<MountLine>, MountError> {
    let mut mounts = mounts()?;
    mounts.retain(|line| line.point == point);
    Ok(mounts.pop())
}

/// Parses a table; lines of another form are skipped.
pub fn parse(text: &str) -> Vec<MountLine> {
    text.lines().filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mnt/point rw,noatime master:1 - ext3 /dev/root rw`; optional fields end at the dash.
fn parse_line(line: &str) -> Option<MountLine> {
    let mut fields = line.split(' ');
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let point = fields.nth(1)?;
    let fstype = fields.skip_while(|field| *field != "-").nth(1)?;
    Some(MountLine {
        device: (major.parse().ok()?, minor.parse().ok()?),
        point: unescape(point).into(),
        fstype: fstype.to_owned(),
    })
}

/// Blank, tab, newline and backslash stand as three octal digits behind a backslash.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|octal| u8::from_str_radix(octal, 8).ok());
        let (byte, used) = code.map_or((b'\\', 1), |byte| (byte, 4));
        out.push_str(&rest[..at]);
        out.push(byte.into());
        rest = &rest[at + used..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_optional_fields_and_escapes_are_read() {
        let text = "36 35 98:0 /mnt1 /mnt/a\\040b\\134c\\011 rw,noatime master:1 shared:2 - ext3 /dev/root rw\n\
                    40 36 0:52 / /mnt ro,nosuid - fuse.model-p2p model-p2p rw,user_id=0\n\
                    garbage\n41 36 0:x / /mnt rw - ext4 d rw\n";
        let lines = parse(text);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].point, Path::new("/mnt/a b\\c\t"));
        assert_eq!(
            (lines[0].device, lines[0].fstype.as_str()),
            ((98, 0), "ext3")
        );
        assert_eq!(
            (lines[1].device, lines[1].fstype.as_str()),
            ((0, 52), FSTYPE)
        );
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(unescape("a\\"), "a\\");
        assert_eq!(unescape("a\\04"), "a\\04");
        assert_eq!(unescape("ü\\040文"), "ü 文");
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(on(Path::new("/")).expect("a table").is_some());
    }
}
