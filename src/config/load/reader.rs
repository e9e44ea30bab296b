//! Typed reading of a tree: a serde format whose errors know the node they stand at.

use std::collections::HashSet;

use serde::{
    de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor},
    forward_to_deserialize_any,
};

use super::{
    super::problem::Step,
    fault::{Fault, Mistake},
    scalar::{Meaning, meaning},
    tree::{Entry, Key, Node, Scalar, Value},
    words,
};

/// Nodes that are passed over, because their mistake is reported already.
#[derive(Default)]
pub struct Pruned(HashSet<*const Node>);

impl Pruned {
    pub fn insert(&mut self, node: &Node) {
        self.0.insert(node);
    }

    pub fn has(&self, node: &Node) -> bool {
        node.is_lost() || (!self.0.is_empty() && self.0.contains(&std::ptr::from_ref(node)))
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
pub struct Reader<'t, 'p> {
    node: &'t Node,
    pruned: &'p Pruned,
}

impl<'t, 'p> Reader<'t, 'p> {
    pub const fn new(node: &'t Node, pruned: &'p Pruned) -> Self {
        Self { node, pruned }
    }

    /// What the type asked for settles the meaning of what a placeholder stands for.
    fn visit<V: Visitor<'t>>(self, visitor: V, asked: Asked) -> Result<V::Value, Mistake<'t>> {
        match &self.node.value {
            Value::Scalar(scalar) => scalar.visit(visitor, asked),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), pruned: self.pruned }),
            Value::Map(map) => visitor.visit_map(Entries { entries: map.entries().iter(), value: None, pruned: self.pruned }),
            Value::Lost => Err(Mistake::new(Fault::Custom("unreadable".to_owned()))),
        }
    }
}

/// What kind of scalar the type wants.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Text,
    Number,
}

impl Scalar {
    fn visit<'t, V: Visitor<'t>>(&'t self, visitor: V, asked: Asked) -> Result<V::Value, Mistake<'t>> {
        let plain = if self.placeholder.is_some() { asked == Asked::Number } else { self.plain };
        match if plain { meaning(&self.text) } else { Meaning::Text(&self.text) } {
            Meaning::Nothing => Err(Error::invalid_type(Unexpected::Unit, &visitor)),
            Meaning::Bool(word) => visitor.visit_bool(word),
            Meaning::Whole(number) => match (u64::try_from(number), i64::try_from(number)) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => visitor.visit_borrowed_str(&self.text),
            },
            Meaning::Decimal(number) => visitor.visit_f64(number),
            Meaning::Text(text) => visitor.visit_borrowed_str(text),
        }
    }
}

/// Forwards the methods that ask for one kind of scalar.
macro_rules! asks {
    ($asked:expr => $($method:ident)*) => {$(
        fn $method<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            self.visit(visitor, $asked)
        }
    )*};
}

impl<'t> Deserializer<'t> for Reader<'t, '_> {
    type Error = Mistake<'t>;

    asks!(Asked::Text => deserialize_any);
    asks!(Asked::Number => deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64);

    /// A key without a value is not an absent key: what was meant to stand there would be missed in silence.
    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(self, name: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        let value = visitor.visit_newtype_struct(self);
        if name == "Secret" { value.map_err(Mistake::veiled) } else { value }
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let word = self.visit(Word { words }, Asked::Text)?;
        visitor.visit_enum(word)
    }

    fn deserialize_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match &self.node.value {
            Value::Map(_) => self.visit(visitor, Asked::Text),
            _ => self.visit(NoMap { keys }, Asked::Text).map(|never| match never {}),
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The items of a list that are not passed over.
struct Items<'t, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'t, Node>>,
    pruned: &'p Pruned,
}

impl<'t> SeqAccess<'t> for Items<'t, '_> {
    type Error = Mistake<'t>;

    fn next_element_seed<T: DeserializeSeed<'t>>(&mut self, seed: T) -> Result<Option<T::Value>, Self::Error> {
        let Some((index, node)) = self.items.find(|(_, node)| !self.pruned.has(node)) else { return Ok(None) };
        let value = seed.deserialize(Reader { node, pruned: self.pruned });
        value.map(Some).map_err(|mistake| mistake.at(node).step(Step::Index(index)))
    }
}

/// The entries of a map that are not passed over.
struct Entries<'t, 'p> {
    entries: std::slice::Iter<'t, Entry>,
    value: Option<&'t Entry>,
    pruned: &'p Pruned,
}

impl<'t> MapAccess<'t> for Entries<'t, '_> {
    type Error = Mistake<'t>;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        let Some(entry) = self.entries.find(|entry| !self.pruned.has(&entry.value)) else { return Ok(None) };
        self.value = Some(entry);
        let key = seed.deserialize(KeyReader(&entry.key));
        key.map(Some).map_err(|mistake| mistake.on_key(entry).step(Step::Key(entry.key.name.clone())))
    }

    fn next_value_seed<T: DeserializeSeed<'t>>(&mut self, seed: T) -> Result<T::Value, Self::Error> {
        let entry = self.value.take().ok_or_else(|| Mistake::custom("a value was read before its key"))?;
        let value = seed.deserialize(Reader { node: &entry.value, pruned: self.pruned });
        value.map_err(|mistake| mistake.at(&entry.value).step(Step::Key(entry.key.name.clone())))
    }
}

/// Reads a key, which is always text.
pub struct KeyReader<'t>(pub &'t Key);

impl<'t> Deserializer<'t> for KeyReader<'t> {
    type Error = Mistake<'t>;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_borrowed_str(&self.0.name)
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(self, _: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map
        struct enum identifier ignored_any
    }
}

/// Takes nothing: says which keys were expected where there is no map.
struct NoMap {
    keys: &'static [&'static str],
}

impl<'t> Visitor<'t> for NoMap {
    type Value = std::convert::Infallible;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = if self.keys.len() == 1 { "key" } else { "keys" };
        write!(f, "a map with the {keys} {}", words::list(self.keys.iter().copied()))
    }
}

/// One of the words of an enum.
struct Word {
    words: &'static [&'static str],
}

/// The word that was found.
struct Chosen<'t>(&'t str);

impl<'t> Visitor<'t> for Word {
    type Value = Chosen<'t>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", words::one_of(self.words))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'t str) -> Result<Chosen<'t>, E> {
        Ok(Chosen(text))
    }
}

impl<'t> EnumAccess<'t> for Chosen<'t> {
    type Error = Mistake<'t>;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'t>>(self, seed: V) -> Result<(V::Value, Self), Self::Error> {
        let variant = seed.deserialize(serde::de::value::BorrowedStrDeserializer::new(self.0))?;
        Ok((variant, self))
    }
}

impl<'t> VariantAccess<'t> for Chosen<'t> {
    type Error = Mistake<'t>;

    fn unit_variant(self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'t>>(self, _: T) -> Result<T::Value, Self::Error> {
        Err(Mistake::custom("a word that takes no value was expected"))
    }

    fn tuple_variant<V: Visitor<'t>>(self, _: usize, _: V) -> Result<V::Value, Self::Error> {
        Err(Mistake::custom("a word that takes no value was expected"))
    }

    fn struct_variant<V: Visitor<'t>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Self::Error> {
        Err(Mistake::custom("a word that takes no value was expected"))
    }
}
