use domain::engine::MetricValue;
use serde::Serialize;
use utoipa::ToSchema;

/// A number, or the name of what JSON has no number for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Number {
    /// A finite number.
    Finite(f64),
    /// Anything else.
    Other(NotFinite),
}

/// What JSON has no number for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) enum NotFinite {
    /// Not a number.
    NaN,
    /// More than every number.
    Infinity,
    /// Less than every number.
    #[serde(rename = "-Infinity")]
    NegativeInfinity,
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        if value.is_nan() {
            Number::Other(NotFinite::NaN)
        } else if value == f64::INFINITY {
            Number::Other(NotFinite::Infinity)
        } else if value == f64::NEG_INFINITY {
            Number::Other(NotFinite::NegativeInfinity)
        } else {
            Number::Finite(value)
        }
    }
}

impl From<MetricValue> for Number {
    fn from(value: MetricValue) -> Self {
        f64::from(value).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_in_json_is_a_word() {
        let all = [1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Number::from);
        assert_eq!(serde_json::to_string(&all).unwrap(), r#"[1.5,"NaN","Infinity","-Infinity"]"#);
    }
}
