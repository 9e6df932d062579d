//! A map for few entries: a sorted list.
//!
//! The table of a home's router has a handful, and a world may have a million routers. A tree takes room for eleven
//! with its first; this takes what there is.

/// A sorted list of keys and values.
#[derive(Clone, Debug)]
pub struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> Few<K, V> {
    fn place(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(key))
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|at| &self.0[at].1)
    }

    /// The value of a key, which is new if there was none.
    pub(super) fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let at = self.place(&key).unwrap_or_else(|at| {
            self.0.insert(at, (key, V::default()));
            at
        });
        &mut self.0[at].1
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        match self.place(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.place(key).ok()?;
        let (_, value) = self.0.remove(at);
        if self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to_fit();
        }
        Some(value)
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&mut V) -> bool) {
        self.0.retain_mut(|(_, value)| stays(value));
        if self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to_fit();
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::random::Dice;

    #[test]
    fn it_does_what_a_tree_does() {
        let mut dice = Dice::new(1, "test");
        let (mut few, mut tree) = (Few::default(), BTreeMap::new());
        for _ in 0..5_000 {
            let (key, value) = (dice.below(40), dice.below(100));
            match dice.below(8) {
                0 | 1 => {
                    few.insert(key, value);
                    tree.insert(key, value);
                }
                2 | 3 => {
                    *few.get_or_default(key) += value;
                    *tree.entry(key).or_default() += value;
                }
                4..=6 => assert_eq!(few.remove(&key), tree.remove(&key)),
                _ => {
                    few.retain(|v| *v != value);
                    tree.retain(|_, v| *v != value);
                }
            }
            assert_eq!(few.get(&key), tree.get(&key));
            assert!(few.iter().map(|(k, v)| (k, v)).eq(tree.iter()) && few.is_empty() == tree.is_empty());
        }
    }
}
