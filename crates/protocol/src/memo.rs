//! Remembers what bytes were parsed to: stores read the same few rosters, plans and approvals with every step, and the same
//! bytes give the same value each time.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

/// Most bytes, of all that were parsed, whose values are kept.
const BYTES: usize = 1 << 20;
/// Longer documents are parsed each time: a few of them would push out all others.
const LONGEST: usize = BYTES / 8;

type Key = (TypeId, [u8; 32]);

#[derive(Default)]
struct Kept {
    values: HashMap<Key, (usize, Arc<dyn Any + Send + Sync>)>,
    oldest: VecDeque<Key>,
    bytes: usize,
}

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

impl Kept {
    fn put(&mut self, key: Key, length: usize, value: Arc<dyn Any + Send + Sync>) {
        if self.values.insert(key, (length, value)).is_none() {
            self.oldest.push_back(key);
            self.bytes += length;
        }
        while self.bytes > BYTES {
            let Some((length, _)) = self.oldest.pop_front().and_then(|key| self.values.remove(&key)) else { return };
            self.bytes -= length;
        }
    }
}

/// What `parse` makes of these bytes, which must depend on nothing else: asked once, and remembered for as long as there is
/// room. Values are named by the SHA-256 of their bytes and by their type, so that no bytes can pass for others.
///
/// # Errors
/// Those of `parse`; they are not remembered.
pub fn parsed<T, E>(bytes: &[u8], parse: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<T, E>
where
    T: Clone + Send + Sync + 'static,
{
    if bytes.len() > LONGEST {
        return parse(bytes);
    }
    let key = (TypeId::of::<T>(), Sha256::digest(bytes).into());
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let found = kept().values.get(&key).map(|(_, value)| value.clone());
    if let Some(value) = found.as_ref().and_then(|value| value.downcast_ref::<T>()) {
        return Ok(value.clone());
    }
    let value = parse(bytes)?;
    kept().put(key, bytes.len(), Arc::new(value.clone()));
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_parsed_once_for_each_type_and_errors_each_time() {
        let asked = std::cell::Cell::new(0);
        let parse = |bytes: &[u8]| {
            asked.set(asked.get() + 1);
            std::str::from_utf8(bytes).map(str::to_owned)
        };
        assert_eq!(parsed(b"a text of this test", parse).unwrap(), "a text of this test");
        assert_eq!(parsed(b"a text of this test", parse).unwrap(), "a text of this test");
        assert_eq!(asked.get(), 1);
        let length = parsed(b"a text of this test", |bytes| Ok::<_, ()>(bytes.len())).unwrap();
        assert_eq!(length, 19, "another type is another value");
        assert!(parsed(b"\xff of this test", parse).is_err());
        assert!(parsed(b"\xff of this test", parse).is_err());
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let mut kept = Kept::default();
        let key = |n: u8| (TypeId::of::<u8>(), [n; 32]);
        for n in 0..20 {
            kept.put(key(n), LONGEST, Arc::new(n));
            kept.put(key(n), LONGEST, Arc::new(n));
        }
        assert!(kept.bytes <= BYTES && kept.values.len() == kept.oldest.len());
        assert!(kept.values.contains_key(&key(19)) && !kept.values.contains_key(&key(0)));
    }
}
