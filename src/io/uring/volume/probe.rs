//! What a block device holds already, by the first and last MiB: pure.
//!
//! Whatever is not zero there is a reason not to format the device; the names only help to say what it is. The
//! places and magics are those of the formats' own documents, as libblkid knows them.

use super::superblock;

/// Where a format writes which bytes; the first that fits names it.
const AT_THE_FRONT: [(usize, &[u8], &str); 22] = [
    (0, b"LUKS\xba\xbe", "a LUKS container"),
    (0, b"XFSB", "an XFS file system"),
    (0, b"bluestore block device", "a Ceph BlueStore"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (82, b"FAT32   ", "a FAT file system"),
    (54, b"FAT", "a FAT file system"),
    (0x218, b"LVM2 001", "an LVM physical volume"),
    (0x18, b"LVM2 001", "an LVM physical volume"),
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (0x400, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (0x1_0040, b"_BHRfS_M", "a btrfs file system"),
    (4086, b"SWAPSPACE2", "swap space"),
    (16374, b"SWAPSPACE2", "swap space"),
    (65526, b"SWAPSPACE2", "swap space"),
    (0, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID"),
    (4096, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID"),
    (0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache device"),
    (32769, b"CD001", "an ISO 9660 file system"),
    (510, b"\x55\xaa", "an MBR partition table"),
];

/// A ZFS label: its uberblocks lie from 128 KiB on, at multiples of 1 KiB at least.
const UBERBLOCK: [&[u8]; 2] = [b"\x0c\xb1\xba\x00\0\0\0\0", b"\0\0\0\0\x00\xba\xb1\x0c"];
const LABEL_BYTES: usize = 256 << 10;
const UBERBLOCKS_AT: usize = 128 << 10;

/// What is in the first and last MiB; `None` if they are zero.
pub(super) fn what_is_at_the_edges(front: &[u8], back: &[u8]) -> Option<String> {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    if is_zero(front) && is_zero(back) {
        return None;
    }
    let has = |bytes: &[u8], at: usize, magic: &[u8]| bytes.get(at..at + magic.len()) == Some(magic);
    let copies = [0, 512 << 10];
    if copies
        .iter()
        .any(|&at| superblock::has_magic(&front[at.min(front.len())..]))
    {
        return Some("a weft volume".to_owned());
    }
    let named = AT_THE_FRONT.iter().find(|(at, magic, _)| has(front, *at, magic));
    if let Some((.., name)) = named {
        return Some((*name).to_owned());
    }
    // Two labels at the front, two at the back: the device's end is that of the last one, rounded down.
    let mut labels = front.chunks(LABEL_BYTES).chain(back.chunks(LABEL_BYTES));
    let is_label = |label: &[u8]| {
        let slots = (UBERBLOCKS_AT..label.len()).step_by(1 << 10);
        slots
            .into_iter()
            .any(|at| UBERBLOCK.iter().any(|magic| has(label, at, magic)))
    };
    if labels.any(is_label) {
        return Some("a ZFS pool's member".to_owned());
    }
    let last_sectors = [512, 4096]
        .into_iter()
        .filter_map(|bytes| back.len().checked_sub(bytes));
    if last_sectors.into_iter().any(|at| has(back, at, b"EFI PART")) {
        return Some("the second copy of a GPT partition table".to_owned());
    }
    let (edge, bytes) = if is_zero(front) {
        ("last", back)
    } else {
        ("first", front)
    };
    let at = bytes.iter().position(|&byte| byte != 0).unwrap_or(0);
    Some(format!(
        "something that is not known, from byte {at} of its {edge} MiB on"
    ))
}

/// Whether these bytes begin a segment of ours.
pub(super) fn is_segment(bytes: &[u8]) -> bool {
    bytes.starts_with(b"WEFTSEGM")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: usize = 1 << 20;

    fn found(edge: Edge, at: usize, bytes: &[u8]) -> Option<String> {
        let (mut front, mut back) = (vec![0; EDGE], vec![0; EDGE]);
        let one = match edge {
            Edge::Front => &mut front,
            Edge::Back => &mut back,
        };
        one[at..at + bytes.len()].copy_from_slice(bytes);
        what_is_at_the_edges(&front, &back)
    }

    #[derive(Clone, Copy)]
    enum Edge {
        Front,
        Back,
    }

    #[test]
    fn only_zeroes_are_nothing() {
        assert_eq!(what_is_at_the_edges(&[0; EDGE], &[0; EDGE]), None);
        for edge in [Edge::Front, Edge::Back] {
            for at in [0, 1, 511, 4096, 700_000, EDGE - 1] {
                let what = found(edge, at, &[1]).expect("a byte is something");
                assert!(what.contains(&format!("byte {at} ")), "{what}");
            }
        }
    }

    #[test]
    fn formats_are_called_by_their_name() {
        for (at, magic, name) in AT_THE_FRONT {
            assert_eq!(
                found(Edge::Front, at, magic).as_deref(),
                Some(name),
                "{magic:?} at {at}"
            );
        }
        for at in [0, 512 << 10] {
            assert_eq!(found(Edge::Front, at, b"WEFTSUPR").unwrap(), "a weft volume");
        }
        for (edge, at) in [
            (Edge::Front, 128 << 10),
            (Edge::Front, (256 + 129) << 10),
            (Edge::Back, EDGE - (128 << 10)),
        ] {
            for magic in UBERBLOCK {
                assert!(found(edge, at, magic).unwrap().contains("ZFS"));
            }
        }
        for from_end in [512, 4096] {
            assert!(
                found(Edge::Back, EDGE - from_end, b"EFI PART")
                    .unwrap()
                    .contains("GPT")
            );
        }
    }
}
