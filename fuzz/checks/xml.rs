//! XML request bodies: whatever the bytes, a value within its bounds or an error, and no panic.

use weft::limits::{DELETE_KEYS_MAX, PARTS_MAX};
use weft::s3::error::{ErrorCode, S3Error};
use weft::s3::xml::requests;

pub fn check(body: &[u8]) {
    match requests::complete_multipart_upload(body) {
        Ok(parts) => assert!((1..=usize::from(PARTS_MAX)).contains(&parts.len())),
        Err(error) => check_error(&error),
    }
    match requests::delete(body) {
        Ok(delete) => {
            assert!((1..=DELETE_KEYS_MAX).contains(&delete.objects.len()));
            // A key that was read is written back as something that reads the same.
            let mut again = b"<Delete>".to_vec();
            for object in &delete.objects {
                again.extend_from_slice(b"<Object><Key>");
                weft::s3::xml::escape_into(&mut again, object.key.as_bytes());
                again.extend_from_slice(b"</Key></Object>");
            }
            again.extend_from_slice(b"</Delete>");
            let again = requests::delete(&again).expect("what we escape we can read");
            assert!(
                again
                    .objects
                    .iter()
                    .map(|object| &object.key)
                    .eq(delete.objects.iter().map(|object| &object.key))
            );
        }
        Err(error) => check_error(&error),
    }
    if let Err(error) = requests::create_bucket_configuration(body) {
        check_error(&error);
    }
}

fn check_error(error: &S3Error) {
    assert!(matches!(
        error.code,
        ErrorCode::MalformedXML | ErrorCode::MaxMessageLengthExceeded
    ));
}
