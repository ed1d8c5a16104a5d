//! Whether a body was refused because of a field that is not known here: whoever asks may be newer than this appliance, which is another
//! matter than a wrong value. Invariant: that is told by serde's own kinds of error, not by their words; it decides nothing but what
//! the refusal is called.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

/// Whether reading this body as `T` ends at a field that `T` does not have.
pub(crate) fn is_unknown_field<T: DeserializeOwned>(body: &[u8]) -> bool {
    let value = serde_json::from_slice::<Value>(body);
    value.is_ok_and(|value| matches!(T::deserialize(Read(value)), Err(Fault::UnknownField)))
}

/// Why a value cannot be read, as far as that matters here.
#[derive(Debug)]
enum Fault {
    UnknownField,
    Other,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::UnknownField => "an unknown field",
            Fault::Other => "not what is taken",
        })
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Fault::Other
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Fault::UnknownField
    }
}

/// A JSON value that is read with these faults. `serde_json` has one kind of error for all that does not fit.
struct Read(Value);

impl IntoDeserializer<'_, Fault> for Read {
    type Deserializer = Read;

    fn into_deserializer(self) -> Read {
        self
    }
}

impl<'de> Deserializer<'de> for Read {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => number.deserialize_any(visitor).map_err(|_| Fault::Other),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(Read))),
            Value::Object(map) => {
                let fields = map.into_iter().map(|(key, value)| (key, Read(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            value => visitor.visit_some(Read(value)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(name.into_deserializer()),
            _ => Err(Fault::Other),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}
