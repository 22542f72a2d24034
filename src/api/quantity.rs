//! Amounts of memory and cpu, in Kubernetes's notation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An amount as Kubernetes writes it: 512Mi, 1.5, 500m or plain 2.
#[derive(Serialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(transparent)]
pub struct Quantity(String);

impl Quantity {
    /// A thousandth of the unit, rounded up. None for what is not an amount.
    fn thousandths(&self) -> Option<u128> {
        let end = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
        let (number, suffix) = self.0.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        // How many thousandths one of the suffix is, as a fraction, so that nothing is rounded twice.
        let (times, per): (u128, u128) = match suffix {
            "n" => (1, 1_000_000),
            "u" => (1, 1_000),
            "m" => (1, 1),
            "" => (1_000, 1),
            "k" => (1_000_000, 1),
            "M" => (1_000_000_000, 1),
            "G" => (1_000_000_000_000, 1),
            "T" => (1_000_000_000_000_000, 1),
            "Ki" => (1_000 << 10, 1),
            "Mi" => (1_000 << 20, 1),
            "Gi" => (1_000 << 30, 1),
            "Ti" => (1_000 << 40, 1),
            _ => return None,
        };
        let per = per.checked_mul(10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
        Some(digits.checked_mul(times)?.div_ceil(per))
    }

    /// In whole units, rounded up: bytes of memory. None for what is not an amount.
    pub fn units(&self) -> Option<u64> {
        u64::try_from(self.thousandths()?.div_ceil(1_000)).ok()
    }

    /// In thousandths, rounded up: millicores. None for what is not an amount.
    pub fn millis(&self) -> Option<u64> {
        u64::try_from(self.thousandths()?).ok()
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A whole number or text, as in Kubernetes's own resources.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Whole(u64),
            Text(String),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Whole(number) => Self(number.to_string()),
            Form::Text(text) => Self(text),
        })
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 20,
            "x-kubernetes-int-or-string": true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        for (text, units, millis) in [
            ("1Gi", 1 << 30, 1000 << 30),
            ("512Mi", 512 << 20, 512_000 << 20),
            ("1.5Gi", 3 << 29, 1500 << 30),
            ("1G", 1_000_000_000, 1_000_000_000_000),
            ("2", 2, 2000),
            ("1.5", 2, 1500),
            ("500m", 1, 500),
            ("1m", 1, 1),
            ("1500u", 1, 2),
        ] {
            let amount = Quantity::from(text);
            assert_eq!((amount.units(), amount.millis()), (Some(units), Some(millis)), "{text}");
        }
        for text in ["", "Gi", "1.2.3", "1 Gi", "-1", "1e3", "1Pi"] {
            assert_eq!(Quantity::from(text).units(), None, "{text}");
        }
    }

    #[test]
    fn a_plain_number_of_yaml_is_an_amount_too() {
        let read: Vec<Quantity> = serde_json::from_str(r#"[2, "500m"]"#).unwrap();
        assert_eq!(read, [Quantity::from("2"), Quantity::from("500m")]);
    }
}
