//! The CRC of a whole from the CRCs and lengths of its pieces, without its bytes.
//!
//! Appending `n` zero bits to a message multiplies its CRC, as a polynomial over GF(2), by x^n modulo the
//! CRC's polynomial; what follows is added. So `crc(ab) = crc(a) * x^(8 * len(b)) + crc(b)`, and the
//! inversions at both ends cancel. Computing the power takes some microseconds; an upload has ten thousand
//! parts that are all equally long but for the last, so the power of the last length is kept.
//!
//! Invariant: everything is in the reflected form that these CRCs have: bit 0 is the highest power.
//!
//! Source: zlib 1.2.12 `crc32_combine`, the method of Mark Adler.

use super::Algorithm;

/// A CRC that grows piece by piece.
pub struct Combiner {
    field: Field,
    crc: u64,
    /// The length in bytes of the last piece, and x^(8 * length).
    power: (u64, u64),
}

impl Combiner {
    /// The CRC of no bytes. `None` if `algorithm` is no CRC.
    pub fn new(algorithm: Algorithm) -> Option<Combiner> {
        let field = Field::of(algorithm)?;
        Some(Combiner {
            field,
            crc: 0,
            power: (0, field.one()),
        })
    }

    /// Appends a piece of `length_bytes` whose CRC is `crc`.
    pub fn append(&mut self, crc: u64, length_bytes: u64) {
        if self.power.0 != length_bytes {
            self.power = (length_bytes, self.field.power_of_bytes(length_bytes));
        }
        self.crc = self.field.multiply(self.power.1, self.crc) ^ crc;
    }

    /// The CRC of all pieces.
    pub fn finish(&self) -> u64 {
        self.crc
    }
}

/// Polynomials over GF(2) modulo a CRC's polynomial.
#[derive(Clone, Copy)]
struct Field {
    /// The polynomial without its highest power.
    polynomial: u64,
    width_bits: u32,
}

impl Field {
    fn of(algorithm: Algorithm) -> Option<Field> {
        match algorithm {
            Algorithm::Crc32 => Some(Field {
                polynomial: 0xedb8_8320,
                width_bits: 32,
            }),
            Algorithm::Crc32C => Some(Field {
                polynomial: 0x82f6_3b78,
                width_bits: 32,
            }),
            Algorithm::Crc64Nvme => Some(Field {
                polynomial: 0x9a6c_9329_ac4b_c9b5,
                width_bits: 64,
            }),
            Algorithm::Sha1
            | Algorithm::Sha256
            | Algorithm::Sha512
            | Algorithm::Md5
            | Algorithm::Xxh64
            | Algorithm::Xxh3
            | Algorithm::Xxh128 => None,
        }
    }

    /// x^0.
    const fn one(self) -> u64 {
        1 << (self.width_bits - 1)
    }

    /// `a * b`. The bits of `a` are taken from x^0 up, while `b` is multiplied by x each time.
    fn multiply(self, a: u64, mut b: u64) -> u64 {
        let mut product = 0;
        for bit in (0..self.width_bits).rev() {
            product ^= b & (a >> bit & 1).wrapping_neg();
            b = b >> 1 ^ (self.polynomial & (b & 1).wrapping_neg());
        }
        product
    }

    /// x^(8 * bytes), by squaring.
    fn power_of_bytes(self, mut bytes: u64) -> u64 {
        let mut power = self.one();
        let mut square = self.one() >> 8;
        while bytes > 0 {
            if bytes & 1 == 1 {
                power = self.multiply(square, power);
            }
            square = self.multiply(square, square);
            bytes >>= 1;
        }
        power
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplying_by_powers_is_appending_zeroes() {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32C, Algorithm::Crc64Nvme] {
            for length in [0usize, 1, 2, 3, 7, 8, 63, 64, 1000, 65_536] {
                let number = |bytes: &[u8]| algorithm.digest(bytes).as_number();
                let mut combiner = Combiner::new(algorithm).unwrap();
                combiner.append(number(b"123456789"), 9);
                combiner.append(number(&vec![0; length]), length as u64);
                let whole = [&b"123456789"[..], &vec![0; length]].concat();
                assert_eq!(
                    combiner.finish(),
                    number(&whole),
                    "{} and {length} zeroes",
                    algorithm.name()
                );
            }
        }
    }

    #[test]
    fn five_tebibytes_agree_with_crc_fast() {
        let table = [
            (Algorithm::Crc32, crc_fast::CrcAlgorithm::Crc32IsoHdlc),
            (Algorithm::Crc32C, crc_fast::CrcAlgorithm::Crc32Iscsi),
            (Algorithm::Crc64Nvme, crc_fast::CrcAlgorithm::Crc64Nvme),
        ];
        for (algorithm, theirs) in table {
            let (first, second) = (
                algorithm.digest(b"a").as_number(),
                algorithm.digest(b"b").as_number(),
            );
            for length in [5 << 40, (5 << 40) - 1, 5 << 30, 5 << 20, 1] {
                let mut combiner = Combiner::new(algorithm).unwrap();
                combiner.append(first, 1);
                combiner.append(second, length);
                assert_eq!(
                    combiner.finish(),
                    crc_fast::checksum_combine(theirs, first, second, length)
                );
            }
        }
    }

    #[test]
    fn only_crcs_combine() {
        let crcs = Algorithm::ALL
            .into_iter()
            .filter(|algorithm| Combiner::new(*algorithm).is_some());
        assert_eq!(
            crcs.collect::<Vec<_>>(),
            [Algorithm::Crc32, Algorithm::Crc32C, Algorithm::Crc64Nvme]
        );
    }
}
