//! Hashes of what users asked for. A container is replaced when its hash changes.
//!
//! Only the normalised inputs enter, never rendered output, so that a new release of k3nest does
//! not roll a node; secrets enter as an HMAC.

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// HMAC of `secret` under the record's random `salt`, as hex.
pub fn mac(salt: &str, secret: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(salt.as_bytes()) else { return String::new() };
    mac.update(secret);
    hex(&mac.finalize().into_bytes())
}

/// Hash of `inputs` in 16 hex digits.
pub fn of(inputs: &impl Serialize) -> String {
    // Maps of serde_json are sorted, so equal inputs give equal text.
    let text = serde_json::to_value(inputs).map(|v| v.to_string()).unwrap_or_default();
    hex(&Sha256::digest(text.as_bytes()))[..16].to_owned()
}

/// A number that depends on `text` alone.
pub fn number(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let (a, b) = (r#"{"a": 1, "b": {"c": 2, "d": 3}}"#, r#"{"b": {"d": 3, "c": 2}, "a": 1}"#);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(of(&value(a)), of(&value(b)));
        assert_ne!(of(&value(a)), of(&json!({})));
    }

    #[test]
    fn a_mac_depends_on_the_salt() {
        assert_ne!(mac("a", b"secret"), mac("b", b"secret"));
    }
}
