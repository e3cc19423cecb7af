//! Upload ids as clients see them: 32 hexadecimal digits.

use crate::engine::UploadId;
use crate::s3::error::{ErrorCode, S3Error, S3Result};

pub fn text(upload: UploadId) -> String {
    upload.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id that a client named.
///
/// Errors: `NoSuchUpload` for what cannot be one.
pub fn parse(text: &str) -> S3Result<UploadId> {
    let no_such = || S3Error::new(ErrorCode::NoSuchUpload).detail("UploadId", text);
    let digits = text.as_bytes();
    let is_id = digits.len() == 32
        && digits
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let number = u128::from_str_radix(text, 16)
        .ok()
        .filter(|_| is_id)
        .ok_or_else(no_such)?;
    Ok(UploadId(number.to_be_bytes()))
}
