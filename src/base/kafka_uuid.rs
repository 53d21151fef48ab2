//! Kafka's text form of a UUID: URL-safe base64 without padding, 22 characters (Kafka's `Uuid`).

use uuid::Uuid;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LEN: usize = 22;

pub fn encode(id: Uuid) -> String {
    let bits = id.as_u128();
    // 128 bits are 21 digits of 6 bits and one of 2, which is filled up on the right.
    let digit = |i: usize| match i {
        21 => (bits << 4) & 63,
        _ => (bits >> (122 - 6 * i)) & 63,
    };
    (0..LEN).map(|i| char::from(ALPHABET[digit(i) as usize])).collect()
}

pub fn decode(text: &str) -> Option<Uuid> {
    if text.len() != LEN {
        return None;
    }
    let mut bits = 0u128;
    for (i, character) in text.bytes().enumerate() {
        let digit = ALPHABET.iter().position(|letter| *letter == character)? as u128;
        bits = match i {
            21 => bits << 2 | digit >> 4,
            _ => bits << 6 | digit,
        };
    }
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_kafkas() {
        assert_eq!(encode(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(encode(Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(encode(decode("9xrWou7aC2kdKee-GpZbSg").expect("is an id")).len(), 22);
        assert_eq!(decode("9xrWou7aC2kdKee+GpZbSg"), None);
        assert_eq!(decode("short"), None);
    }

    proptest! {
        #[test]
        fn round_trips(bits: u128) {
            let id = Uuid::from_u128(bits);
            prop_assert_eq!(decode(&encode(id)), Some(id));
        }
    }
}
