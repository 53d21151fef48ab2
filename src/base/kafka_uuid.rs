//! Kafka's text form of a UUID: URL-safe base64 without padding, 22 characters (Kafka's `Uuid`).

use base64::{
    Engine, alphabet,
    engine::general_purpose::{GeneralPurpose, NO_PAD},
};
use uuid::Uuid;

/// As in Java, the bits of the last character that belong to no byte are ignored.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// The text of a UUID.
pub fn encode(id: Uuid) -> String {
    BASE64.encode(id.as_bytes())
}

/// The UUID of a text, or `None` if the text is invalid.
pub fn decode(text: &str) -> Option<Uuid> {
    // Base64 decodes groups of three bytes, so 16 bytes need room for 18.
    let mut bytes = [0; 18];
    let length = BASE64.decode_slice(text, &mut bytes).ok()?;
    Uuid::from_slice(&bytes[..length]).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_kafkas() {
        assert_eq!(encode(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(encode(Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
        let id = decode("9xrWou7aC2kdKee-GpZbSg").expect("is an id");
        assert_eq!(encode(id), "9xrWou7aC2kdKee-GpZbSg");
        assert_eq!(decode("9xrWou7aC2kdKee-GpZbSh"), Some(id), "the last four bits do not count");
        for text in [
            "9xrWou7aC2kdKee+GpZbSg",
            "9xrWou7aC2kdKee-GpZbSg==",
            "9xrWou7aC2kdKee-GpZbSgA",
            "9xrWou7aC2kdKee-GpZbSgAAAAAAAAAA",
            "9xrWou7aC2kdKee-GpZbS",
            "short",
            "",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(bits: u128) {
            let id = Uuid::from_u128(bits);
            prop_assert_eq!(decode(&encode(id)), Some(id));
        }
    }
}
