//! What a leaf of the tree commits to, and how entries are written down.
//!
//! Every field of an entry is one compact JSON value. Its *commitment* is
//! SHA-256("hospes/ledger-field/v1" ‖ 0x00 ‖ field number ‖ salt (16 bytes) ‖ value), and the leaf is
//! "hospes/ledger-entry/v1" ‖ 0x00 ‖ (field number ‖ commitment)… in the order of the numbers; absent fields have none.
//! To erase a field, value and salt are deleted and the commitment is kept: the leaf, and with it every proof, stays as
//! it was, and the value cannot be guessed without the salt.
//!
//! Written form, in the database and in an export alike, one JSON object:
//! `{"when":["<salt>",{…}],"actor":{"erased":"<rule>","was":"<commitment>"},…}`, salts and commitments in base64
//! without padding. The bytes of a value are hashed as they stand; nothing is ever encoded again.

use data_encoding::BASE64_NOPAD;
use hospes_protocol::id::{Digest, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::entry::{Action, Actor, Change, Egress, Engine, Entry, Object, Outcome, PeerEntry, Purpose};
use crate::{LedgerError, tree};

const FIELD_DOMAIN: &[u8] = b"hospes/ledger-field/v1\0";
const LEAF_DOMAIN: &[u8] = b"hospes/ledger-entry/v1\0";
const SALT_DOMAIN: &[u8] = b"hospes/ledger-salt/v1\0";
/// Bytes of a salt: guessing a value from its commitment takes 2^128 tries.
const SALT_BYTES: usize = 16;
/// Deepest nesting of a value.
const DEPTH: u32 = 8;

/// A field of an entry, in the order in which leaves commit to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// UTC time and order.
    When = 1,
    /// Who.
    Actor = 2,
    /// On whose behalf.
    OnBehalf = 3,
    /// What.
    Action = 4,
    /// To what.
    Objects = 5,
    /// For which study, job, approval.
    Purpose = 6,
    /// Settings before and after.
    Change = 7,
    /// What left.
    Egress = 8,
    /// How it ended.
    Outcome = 9,
    /// Why.
    Reason = 10,
    /// Program and machine.
    Engine = 11,
    /// The peer's entry this answers.
    Answers = 12,
}

impl Field {
    /// All fields in order.
    pub const ALL: [Self; 12] = [
        Self::When,
        Self::Actor,
        Self::OnBehalf,
        Self::Action,
        Self::Objects,
        Self::Purpose,
        Self::Change,
        Self::Egress,
        Self::Outcome,
        Self::Reason,
        Self::Engine,
        Self::Answers,
    ];

    /// Name in the written form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::When => "when",
            Self::Actor => "actor",
            Self::OnBehalf => "on_behalf",
            Self::Action => "action",
            Self::Objects => "objects",
            Self::Purpose => "purpose",
            Self::Change => "change",
            Self::Egress => "egress",
            Self::Outcome => "outcome",
            Self::Reason => "reason",
            Self::Engine => "engine",
            Self::Answers => "answers",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.as_str() == name)
    }
}

/// UTC time, and an order that never goes back even if the clock does: at least one more than that of the entry before,
/// otherwise the time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// Milliseconds since 1970, by the party's clock.
    pub at: Timestamp,
    /// Order.
    pub order: u64,
}

/// What is left of one field of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// Salt and value.
    Kept { salt: [u8; SALT_BYTES], value: &'a str },
    /// Rule and commitment.
    Erased { rule: &'a str, was: Digest },
}

/// A field in written form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) field: Field,
    pub(crate) content: Content<'a>,
}

impl Part<'_> {
    fn commitment(&self) -> Digest {
        match self.content {
            Content::Kept { salt, value } => commitment(self.field, &salt, value.as_bytes()),
            Content::Erased { was, .. } => was,
        }
    }
}

fn commitment(field: Field, salt: &[u8; SALT_BYTES], value: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(FIELD_DOMAIN);
    hash.update([field as u8]);
    hash.update(salt);
    hash.update(value);
    Digest::from_bytes(hash.finalize().into())
}

/// The salt of one field of one entry. `random` is new for every append and is not kept, so that a salt that was
/// deleted cannot be made again.
fn salt(random: &[u8; 32], sequence: u64, field: Field) -> [u8; SALT_BYTES] {
    let mut hash = Sha256::new();
    hash.update(SALT_DOMAIN);
    hash.update(random);
    hash.update(sequence.to_be_bytes());
    hash.update([field as u8]);
    let full: [u8; 32] = hash.finalize().into();
    let mut salt = [0; SALT_BYTES];
    salt.copy_from_slice(&full[..SALT_BYTES]);
    salt
}

/// Hash of the leaf that commits to these parts.
pub(crate) fn leaf_hash(parts: &[Part<'_>]) -> Digest {
    let mut leaf = Vec::with_capacity(LEAF_DOMAIN.len() + parts.len() * 33);
    leaf.extend_from_slice(LEAF_DOMAIN);
    for part in parts {
        leaf.push(part.field as u8);
        leaf.extend_from_slice(part.commitment().as_bytes());
    }
    tree::leaf_hash(&leaf)
}

/// Written form and leaf hash of a new entry.
pub(crate) fn seal(
    entry: &Entry,
    sequence: u64,
    order: u64,
    random: &[u8; 32],
) -> Result<(String, Digest), LedgerError> {
    let mut values: Vec<(Field, String)> = Vec::with_capacity(8);
    push(&mut values, Field::When, Some(&When { at: entry.at, order }))?;
    push(&mut values, Field::Actor, Some(&entry.actor))?;
    push(&mut values, Field::OnBehalf, entry.on_behalf.as_ref())?;
    push(&mut values, Field::Action, Some(&entry.action))?;
    push(&mut values, Field::Objects, Some(&entry.objects).filter(|o| !o.is_empty()))?;
    push(&mut values, Field::Purpose, Some(&entry.purpose).filter(|p| **p != Purpose::default()))?;
    push(&mut values, Field::Change, entry.change.as_ref())?;
    push(&mut values, Field::Egress, entry.egress.as_ref())?;
    push(&mut values, Field::Outcome, Some(&entry.outcome))?;
    push(&mut values, Field::Reason, entry.reason.as_ref())?;
    push(&mut values, Field::Engine, Some(&entry.engine))?;
    push(&mut values, Field::Answers, entry.answers.as_ref())?;
    let parts: Vec<Part<'_>> = values
        .iter()
        .map(|(field, value)| Part {
            field: *field,
            content: Content::Kept { salt: salt(random, sequence, *field), value },
        })
        .collect();
    Ok((write(&parts), leaf_hash(&parts)))
}

fn push<T: Serialize>(values: &mut Vec<(Field, String)>, field: Field, value: Option<&T>) -> Result<(), LedgerError> {
    if let Some(value) = value {
        let text = serde_json::to_string(value)
            .map_err(|e| LedgerError::Field { field: field.as_str(), reason: e.to_string() })?;
        values.push((field, text));
    }
    Ok(())
}

/// The written form of parts.
pub(crate) fn write(parts: &[Part<'_>]) -> String {
    let mut text = String::with_capacity(96 * parts.len());
    for part in parts {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push('"');
        text.push_str(part.field.as_str());
        match part.content {
            Content::Kept { salt, value } => {
                text.push_str("\":[\"");
                BASE64_NOPAD.encode_append(&salt, &mut text);
                text.push_str("\",");
                text.push_str(value);
                text.push(']');
            }
            Content::Erased { rule, was } => {
                text.push_str("\":{\"erased\":\"");
                text.push_str(rule);
                text.push_str("\",\"was\":\"");
                BASE64_NOPAD.encode_append(was.as_bytes(), &mut text);
                text.push_str("\"}");
            }
        }
    }
    text.push('}');
    text
}

/// The parts of a written form; strict, so that every byte is either structure or hashed.
pub(crate) fn read(text: &str) -> Result<Vec<Part<'_>>, &'static str> {
    let mut cursor = Cursor { text, at: 0 };
    let mut parts: Vec<Part<'_>> = Vec::with_capacity(8);
    cursor.expect("{\"")?;
    loop {
        let field = Field::named(cursor.until("\":")?).ok_or("a field has an unknown name")?;
        if parts.last().is_some_and(|last| last.field >= field) {
            return Err("the fields are out of order");
        }
        let content = if cursor.take("[\"") {
            let salt = decode::<SALT_BYTES>(cursor.until("\",")?).ok_or("a salt is no base64")?;
            let value = cursor.value()?;
            cursor.expect("]")?;
            Content::Kept { salt, value }
        } else {
            cursor.expect("{\"erased\":\"")?;
            let rule = cursor.until("\",\"was\":\"")?;
            if !rule_is_plain(rule) {
                return Err("the name of a rule has other characters than it may have");
            }
            let was = decode::<32>(cursor.until("\"}")?).ok_or("a commitment is no base64")?;
            Content::Erased { rule, was: Digest::from_bytes(was) }
        };
        parts.push(Part { field, content });
        if cursor.take("}") {
            break;
        }
        cursor.expect(",\"")?;
    }
    if cursor.at == text.len() { Ok(parts) } else { Err("something follows the fields") }
}

/// Whether a text can name a rule of retention: letters, digits, space and `.:_-`, so that it needs no escaping.
pub(crate) fn rule_is_plain(rule: &str) -> bool {
    !rule.is_empty()
        && rule.len() <= crate::limits::NAME_CHARS
        && rule.bytes().all(|b| b.is_ascii_alphanumeric() || b" .:_-".contains(&b))
}

pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if BASE64_NOPAD.decode_len(text.len()).ok()? != N {
        return None;
    }
    BASE64_NOPAD.decode_mut(text.as_bytes(), &mut bytes).ok()?;
    Some(bytes)
}

/// A strict reader of the written form.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(crate) fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    pub(crate) fn expect(&mut self, token: &'static str) -> Result<(), &'static str> {
        if self.take(token) { Ok(()) } else { Err("the form is not the one that is written") }
    }

    /// The text up to the token, which is skipped.
    pub(crate) fn until(&mut self, token: &'static str) -> Result<&'a str, &'static str> {
        let rest = self.rest();
        let end = rest.find(token).ok_or("the form is not the one that is written")?;
        self.at += end + token.len();
        Ok(&rest[..end])
    }

    /// A decimal number without sign or leading zeros.
    pub(crate) fn number(&mut self) -> Result<u64, &'static str> {
        let rest = self.rest();
        let end = rest.bytes().take_while(u8::is_ascii_digit).count();
        self.at += end;
        let digits = &rest[..end];
        match digits.parse() {
            Ok(number) if !digits.starts_with('0') || digits.len() == 1 => Ok(number),
            _ => Err("a number is not written as one"),
        }
    }

    /// What is left.
    pub(crate) fn finish(self) -> &'a str {
        self.rest()
    }

    /// One JSON object, array or string, as it stands.
    fn value(&mut self) -> Result<&'a str, &'static str> {
        let rest = self.rest();
        let (mut depth, mut quoted, mut escaped) = (0u32, false, false);
        for (i, byte) in rest.bytes().enumerate() {
            if byte < 0x20 {
                return Err("a value has a control character");
            }
            if quoted {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => quoted = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => quoted = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth > 0 => depth -= 1,
                    _ if depth == 0 => return Err("a value is no object, list or text"),
                    _ => {}
                }
            }
            if depth > DEPTH {
                return Err("a value is nested too deeply");
            }
            if depth == 0 && !quoted {
                self.at += i + 1;
                return Ok(&rest[..=i]);
            }
        }
        Err("a value does not end")
    }
}

/// An entry as it stands in the ledger: what an [`Entry`] said, with sequence and order, less what was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Place in the ledger, from 0.
    pub sequence: u64,
    /// UTC time and order.
    pub when: Option<When>,
    /// Who.
    pub actor: Option<Actor>,
    /// On whose behalf.
    pub on_behalf: Option<Actor>,
    /// What.
    pub action: Option<Action>,
    /// To what.
    pub objects: Vec<Object>,
    /// For which study, job, approval.
    pub purpose: Purpose,
    /// Settings before and after.
    pub change: Option<Change>,
    /// What left.
    pub egress: Option<Egress>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why.
    pub reason: Option<String>,
    /// Program and machine.
    pub engine: Option<Engine>,
    /// The peer's entry this answers.
    pub answers: Option<PeerEntry>,
    /// Fields erased, each with the rule under which it was: *erased under rule X*.
    pub erased: Vec<(Field, String)>,
}

impl Record {
    /// Reads a record from its written form.
    pub(crate) fn read(sequence: u64, text: &str) -> Result<Self, LedgerError> {
        let damaged = |what: &str| LedgerError::Damaged(format!("entry {sequence}: {what}"));
        let parts = read(text).map_err(damaged)?;
        Self::of(sequence, &parts).map_err(|what| damaged(&what))
    }

    /// What the parts of an entry say.
    pub(crate) fn of(sequence: u64, parts: &[Part<'_>]) -> Result<Self, String> {
        let mut record = Self {
            sequence,
            when: None,
            actor: None,
            on_behalf: None,
            action: None,
            objects: Vec::new(),
            purpose: Purpose::default(),
            change: None,
            egress: None,
            outcome: None,
            reason: None,
            engine: None,
            answers: None,
            erased: Vec::new(),
        };
        for part in parts {
            match part.content {
                Content::Erased { rule, .. } => record.erased.push((part.field, rule.to_owned())),
                Content::Kept { value, .. } => record.set(part.field, value)?,
            }
        }
        Ok(record)
    }

    /// *erased under rule X*, where the field was.
    #[must_use]
    pub fn erased_words(&self, field: Field) -> Option<String> {
        self.erased.iter().find(|(erased, _)| *erased == field).map(|(_, rule)| format!("erased under rule {rule}"))
    }

    fn set(&mut self, field: Field, value: &str) -> Result<(), String> {
        fn parse<T: DeserializeOwned>(field: Field, value: &str) -> Result<T, String> {
            serde_json::from_str(value).map_err(|e| format!("{} cannot be read: {e}", field.as_str()))
        }
        match field {
            Field::When => self.when = Some(parse(field, value)?),
            Field::Actor => self.actor = Some(parse(field, value)?),
            Field::OnBehalf => self.on_behalf = Some(parse(field, value)?),
            Field::Action => self.action = Some(parse(field, value)?),
            Field::Objects => self.objects = parse(field, value)?,
            Field::Purpose => self.purpose = parse(field, value)?,
            Field::Change => self.change = Some(parse(field, value)?),
            Field::Egress => self.egress = Some(parse(field, value)?),
            Field::Outcome => self.outcome = Some(parse(field, value)?),
            Field::Reason => self.reason = Some(parse(field, value)?),
            Field::Engine => self.engine = Some(parse(field, value)?),
            Field::Answers => self.answers = Some(parse(field, value)?),
        }
        Ok(())
    }
}

/// The written form after some fields were erased under a rule; `None` if nothing was left to erase.
pub(crate) fn erase(text: &str, fields: &[Field], rule: &str) -> Result<Option<String>, &'static str> {
    let mut parts = read(text)?;
    let mut changed = false;
    for part in &mut parts {
        if matches!(part.content, Content::Kept { .. }) && fields.contains(&part.field) {
            part.content = Content::Erased { rule, was: part.commitment() };
            changed = true;
        }
    }
    Ok(changed.then(|| write(&parts)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::id::{PersonId, StudyId};
    use proptest::prelude::*;

    fn entry() -> Entry {
        let person = PersonId::new(Timestamp::from_millis(1_700_000_000_000), [3; 10]);
        let study = StudyId::new(Timestamp::from_millis(1_700_000_000_000), [4; 10]);
        Entry::new(
            Timestamp::from_millis(1_700_000_000_123),
            Actor::person(person, Some(hospes_protocol::approval::Role::DataSteward), None),
            Action::ApprovalSigned,
            Engine::new("hospes-site 0.1.0"),
        )
        .purpose(Purpose { study: Some(study), ..Purpose::default() })
        .refused("a \"quoted\" reason, {braces} and\na line \\ more é")
    }

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        let (text, leaf) = seal(&entry(), 7, 99, &[5; 32]).unwrap();
        assert_eq!(leaf_hash(&read(&text).unwrap()), leaf);
        assert_eq!(write(&read(&text).unwrap()), text);
        let record = Record::read(7, &text).unwrap();
        assert_eq!(record.reason, entry().reason);
        assert_eq!(record.actor, Some(entry().actor));
        assert_eq!(record.when, Some(When { at: entry().at, order: 99 }));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    /// The bytes under the hash are part of the format: a change breaks every ledger that exists.
    #[test]
    fn golden_leaf_stays_the_same() {
        let (text, leaf) = seal(&entry(), 7, 99, &[5; 32]).unwrap();
        expect_test::expect![[r#"
            1c770979642b35e363086aec84b12327bc5ff0cd605c4db05f3eafb16cef4331
            {"when":["bbLq69v3TvmVI90T5Xt8Ng",{"at":1700000000123,"order":99}],"actor":["LQeQGew60URdsNkIiOCg3w",{"person":{"id":"018bcfe5-6800-7303-8303-030303030303","role":"data_steward"}}],"action":["4yehOLRv8To/uaC59+wQaw","approval_signed"],"purpose":["zr/pIkT0IVGwsSRzEGlqFA",{"study":"018bcfe5-6800-7404-8404-040404040404"}],"outcome":["beKwyUhqs+XZwoqdeHgVrA","refused"],"reason":["0wM38PmO66F2MlGSZD43Bw","a \"quoted\" reason, {braces} and\na line \\ more é"],"engine":["fnNP7Wvt0ldnGL621w2wLw",{"version":"hospes-site 0.1.0"}]}"#]].assert_eq(&format!("{leaf}\n{text}"));
    }

    #[test]
    fn an_erased_field_keeps_the_leaf_and_names_its_rule() {
        let (text, leaf) = seal(&entry(), 7, 99, &[5; 32]).unwrap();
        let erased = erase(&text, &[Field::Actor, Field::Reason], "retention 10 years").unwrap().unwrap();
        assert_eq!(leaf_hash(&read(&erased).unwrap()), leaf);
        let record = Record::read(7, &erased).unwrap();
        assert_eq!((record.actor, record.reason), (None, None));
        assert_eq!(record.erased[0], (Field::Actor, "retention 10 years".to_owned()));
        assert!(!erased.contains("quoted"));
        assert_eq!(erase(&erased, &[Field::Actor], "again").unwrap(), None);
    }

    #[test]
    fn equal_values_of_two_entries_have_different_commitments() {
        let (one, _) = seal(&entry(), 7, 99, &[5; 32]).unwrap();
        let (two, _) = seal(&entry(), 8, 99, &[5; 32]).unwrap();
        for (a, b) in read(&one).unwrap().iter().zip(read(&two).unwrap()) {
            assert_ne!(a.commitment(), b.commitment());
        }
    }

    proptest! {
        #[test]
        fn one_changed_byte_changes_the_leaf_or_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let (text, leaf) = seal(&entry(), 7, 99, &[5; 32]).unwrap();
            let mut bytes = text.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(changed) = String::from_utf8(bytes)
                && let Ok(parts) = read(&changed)
            {
                prop_assert_ne!(leaf_hash(&parts), leaf);
            }
        }

        #[test]
        fn arbitrary_text_never_panics_and_what_reads_is_written_alike(text in ".{0,200}") {
            if let Ok(parts) = read(&text) {
                prop_assert_eq!(write(&parts), text);
            }
        }
    }
}
