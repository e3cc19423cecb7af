//! Keys and values of the index, as they lie in records: what decodes them never panics, and what they decode to is
//! spelled in the same bytes.

use weft::engine::{Bucket, Object, Part, Upload};
use weft::index::key::{self, Named};

pub fn check(data: &[u8]) {
    let Some((&key_length, rest)) = data.split_first() else {
        return;
    };
    let (index_key, value) = rest.split_at(rest.len().min(usize::from(key_length)));
    spelled_the_same(index_key);
    if let Some(object) = Object::decode(value) {
        assert_eq!(object.encode(), value);
    }
    if let Some(part) = Part::decode(value) {
        assert_eq!(part.encode(), value);
    }
    if let Some(upload) = Upload::decode(value) {
        assert_eq!(upload.encode(), value);
    }
    if let Some(bucket) = Bucket::decode(value) {
        assert_eq!(bucket.encode(), value);
    }
}

fn spelled_the_same(index_key: &[u8]) {
    let spelled = match key::parse(index_key) {
        None => return,
        Some(Named::Object { bucket, key }) => {
            assert_eq!(key::object_key(index_key), key);
            key::object(bucket, &key)
        }
        Some(Named::Upload { bucket, key, upload }) => key::upload(bucket, &key, upload),
        Some(Named::Part {
            bucket,
            key,
            upload,
            number,
        }) => key::part(bucket, &key, upload, number),
        // Names are UTF-8 where they are made; bytes on a disk may be anything.
        Some(Named::Bucket { name }) => match String::from_utf8(name) {
            Ok(name) => key::bucket(&name),
            Err(_) => return,
        },
    };
    assert_eq!(spelled, index_key);
}
