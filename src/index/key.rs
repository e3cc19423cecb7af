//! How keys of the index are spelled in bytes, so that their order is the order of listings.
//!
//! ```text
//! object   'o' bucket(u64 BE) escaped key
//! upload   'u' bucket(u64 BE) escaped key  upload id (16 bytes)
//! part     'u' bucket(u64 BE) escaped key  upload id (16 bytes)  part number (u16 BE)
//! bucket   'b' name
//! ```
//! An escaped key is the key with each 0x00 spelled 0x00 0xff, ended by 0x00 0x01: it sorts as the key
//! itself does, and what follows it never mixes with a longer key. A part sorts right behind its upload.

/// Identifies a bucket for ever: the sequence of the record that made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BucketId(pub u64);

/// Identifies an upload for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UploadId(pub [u8; 16]);

const OBJECT: u8 = b'o';
const UPLOAD: u8 = b'u';
const BUCKET: u8 = b'b';
const TABLE_BYTES: usize = 9;
const TERMINATOR: [u8; 2] = [0, 1];

/// What a key of the index names.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    Object {
        bucket: BucketId,
        key: Vec<u8>,
    },
    Upload {
        bucket: BucketId,
        key: Vec<u8>,
        upload: UploadId,
    },
    Part {
        bucket: BucketId,
        key: Vec<u8>,
        upload: UploadId,
        number: u16,
    },
    Bucket {
        name: Vec<u8>,
    },
}

/// The index key of an object.
pub fn object(bucket: BucketId, key: &[u8]) -> Vec<u8> {
    let mut out = object_prefix(bucket, key);
    out.extend_from_slice(&TERMINATOR);
    out
}

/// What the index keys of a bucket's objects whose keys start with `prefix` start with.
pub fn object_prefix(bucket: BucketId, prefix: &[u8]) -> Vec<u8> {
    table(OBJECT, bucket, prefix)
}

/// The index key of an upload.
pub fn upload(bucket: BucketId, key: &[u8], upload: UploadId) -> Vec<u8> {
    let mut out = upload_prefix(bucket, key);
    out.extend_from_slice(&TERMINATOR);
    out.extend_from_slice(&upload.0);
    out
}

/// What the index keys of a bucket's uploads whose keys start with `prefix` start with.
pub fn upload_prefix(bucket: BucketId, prefix: &[u8]) -> Vec<u8> {
    table(UPLOAD, bucket, prefix)
}

/// The index key of a part.
pub fn part(bucket: BucketId, key: &[u8], upload_id: UploadId, number: u16) -> Vec<u8> {
    let mut out = upload(bucket, key, upload_id);
    out.extend_from_slice(&number.to_be_bytes());
    out
}

/// The index key of a bucket.
pub fn bucket(name: &str) -> Vec<u8> {
    let mut out = vec![BUCKET];
    out.extend_from_slice(name.as_bytes());
    out
}

/// Reads an index key; `None` if it is not one.
pub fn parse(index_key: &[u8]) -> Option<Named> {
    let (&table, rest) = index_key.split_first()?;
    if table == BUCKET {
        return Some(Named::Bucket { name: rest.to_vec() });
    }
    let (bucket, rest) = rest.split_first_chunk::<8>()?;
    let bucket = BucketId(u64::from_be_bytes(*bucket));
    let (key, rest) = unescape(rest)?;
    match (table, rest.len()) {
        (OBJECT, 0) => Some(Named::Object { bucket, key }),
        (UPLOAD, 16) => Some(Named::Upload {
            bucket,
            key,
            upload: UploadId(rest.try_into().ok()?),
        }),
        (UPLOAD, 18) => Some(Named::Part {
            bucket,
            key,
            upload: UploadId(rest[..16].try_into().ok()?),
            number: u16::from_be_bytes(rest[16..].try_into().ok()?),
        }),
        _ => None,
    }
}

/// Whether an index key names an upload (not a part of one).
pub fn is_upload(index_key: &[u8]) -> bool {
    index_key.first() == Some(&UPLOAD) && matches!(parse(index_key), Some(Named::Upload { .. }))
}

/// Whether an index key names an object.
pub fn is_object(index_key: &[u8]) -> bool {
    index_key.first() == Some(&OBJECT)
}

/// The object key inside the index key of an object, for keys without 0x00 (nearly all) without a copy.
pub fn object_key(index_key: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let escaped = &index_key[TABLE_BYTES..index_key.len() - TERMINATOR.len()];
    if escaped.contains(&0) {
        let (key, _) = unescape(&index_key[TABLE_BYTES..]).expect("index keys are well formed");
        std::borrow::Cow::Owned(key)
    } else {
        std::borrow::Cow::Borrowed(escaped)
    }
}

fn table(table: u8, bucket: BucketId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(TABLE_BYTES + key.len() + 20);
    out.push(table);
    out.extend_from_slice(&bucket.0.to_be_bytes());
    if key.contains(&0) {
        for &byte in key {
            out.push(byte);
            if byte == 0 {
                out.push(0xff);
            }
        }
    } else {
        out.extend_from_slice(key);
    }
    out
}

fn unescape(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut key = Vec::with_capacity(bytes.len());
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => match *bytes.get(at + 1)? {
                1 => return Some((key, &bytes[at + 2..])),
                0xff => {
                    key.push(0);
                    at += 2;
                }
                _ => return None,
            },
            byte => {
                key.push(byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET_ID: BucketId = BucketId(7);
    const UPLOAD_ID: UploadId = UploadId([9; 16]);

    #[test]
    fn index_keys_sort_as_their_keys() {
        let mut keys: Vec<&[u8]> = vec![
            b"a\0", b"a", b"a/b", b"ab", b"\0", b"", b"a\0\0", b"a\0\x01", b"a\0\xff", b"\xff",
        ];
        let mut encoded: Vec<Vec<u8>> = keys.iter().map(|k| object(BUCKET_ID, k)).collect();
        keys.sort();
        encoded.sort();
        let decoded: Vec<Vec<u8>> = encoded.iter().map(|k| object_key(k).into_owned()).collect();
        assert_eq!(decoded, keys);
    }

    #[test]
    fn golden_bytes() {
        let (bucket_id, upload_id) = (BucketId(0x0102_0304_0506_0708), UploadId(*b"upload, 16 bytes"));
        let id = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(
            object(bucket_id, b"a\0b"),
            [b"o".as_slice(), &id, b"a\0\xffb\0\x01"].concat()
        );
        let golden = [b"u".as_slice(), &id, b"key\0\x01upload, 16 bytes"].concat();
        assert_eq!(upload(bucket_id, b"key", upload_id), golden);
        let golden = [&golden, [0x12, 0x34].as_slice()].concat();
        assert_eq!(part(bucket_id, b"key", upload_id, 0x1234), golden);
        assert_eq!(super::bucket("name"), b"bname");
    }

    #[test]
    fn every_kind_is_read_back() {
        let key = b"x\0y/z".to_vec();
        assert_eq!(
            parse(&object(BUCKET_ID, &key)),
            Some(Named::Object {
                bucket: BUCKET_ID,
                key: key.clone()
            })
        );
        assert_eq!(
            parse(&upload(BUCKET_ID, &key, UPLOAD_ID)),
            Some(Named::Upload {
                bucket: BUCKET_ID,
                key: key.clone(),
                upload: UPLOAD_ID
            })
        );
        assert_eq!(
            parse(&part(BUCKET_ID, &key, UPLOAD_ID, 10_000)),
            Some(Named::Part {
                bucket: BUCKET_ID,
                key,
                upload: UPLOAD_ID,
                number: 10_000
            })
        );
        assert_eq!(parse(&bucket("b1")), Some(Named::Bucket { name: b"b1".to_vec() }));
        assert_eq!(parse(b"o123"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"o\0\0\0\0\0\0\0\x01abc\0"), None);
    }
}
