//! Names that look like those of others, and texts that are too long to be read.

use super::*;
use crate::error::PartyError;
use crate::requests::text::render;
use crate::view::{NameMark, NameOf};

/// What a mark is of, and whom the name looks like.
fn alike(marks: &[NameMark]) -> Vec<(NameOf, Option<&str>)> {
    marks.iter().map(|mark| (mark.of, mark.like.as_deref())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_names_look_like_known_ones_is_marked_and_not_refused() {
    let mut world = World::new().await;
    let first = study(1, small_plan(1));
    world.connect().await;
    world.offer(&first).await;
    let review = world.handle.review(world.who("sam"), first.id, None).await.unwrap();
    assert!(review.marks.is_empty(), "{:?}", review.marks);
    world.approve(&first).await;

    // Each of these а is Cyrillic: a signer of this site, its federation, and the study of before.
    let mut second = study(2, small_plan(1));
    second.terms.requester.name = "s\u{430}m".into();
    second.terms.requester.organisation = "He\u{430}rt Federation".into();
    second.terms.title = "Heart dise\u{430}se risk".into();
    world.offer(&second).await;
    let review = world.handle.review(world.who("sam"), second.id, None).await.unwrap();
    let wanted = [
        (NameOf::Person, Some("sam")),
        (NameOf::Organisation, Some("Heart Federation")),
        (NameOf::Study, Some("Heart disease risk")),
    ];
    assert_eq!(alike(&review.marks), wanted, "{:?}", review.marks);
    assert_eq!(review.marks[0].letters, ["\u{430} (U+0430)"]);
    assert!(review.approvable, "real names exist in all scripts: {:?}", review.findings);
    let warned =
        review.findings.iter().any(|f| f.rule == "requester" && f.words.contains("looks like the requester's"));
    assert!(warned, "{:?}", review.findings);
    let text = render(&review).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("'s\u{430}m' looks like 'sam', but has other letters: \u{430} (U+0430)"), "{text}");

    // A column that the dataset seems to have.
    let mut plan = small_plan(1);
    plan.data.columns.push("\u{430}ge".into());
    let third = study(3, plan);
    world.offer(&third).await;
    let review = world.handle.review(world.who("sam"), third.id, None).await.unwrap();
    assert!(alike(&review.marks).contains(&(NameOf::Column, Some("age"))), "{:?}", review.marks);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_people_that_look_alike_are_marked() {
    let mut world = World::new().await;
    world.add_person("xara", Role::DataAccessApprover, Some("He\u{430}rt Federation")).await;
    world.connect().await;
    let identity = key(5);
    let statement = MemberStatement {
        federation: federation(),
        name: "S\u{456}te 2".into(),
        organisation: "Hospital 5".into(),
        identity: identity.public(),
    };
    let signed = Canonical::new(statement.clone()).unwrap();
    let MemberStatement { name, organisation, .. } = statement;
    let mut larger = roster(2);
    larger.members.push(Member {
        site: identity.public().site_id(),
        name,
        organisation,
        identity: identity.public(),
        statement: identity.sign(&signed.digest()),
    });
    larger.members.sort_by_key(|m| m.site);
    world.send(ToSite::Roster(Box::new(Signed::new(larger, &coordinator()).unwrap()))).await;
    world.settle().await;
    let marks = world.handle.name_marks(world.who("sam")).await.unwrap();
    let found = alike(&marks);
    for wanted in [
        (NameOf::Organisation, Some("Heart Federation")),
        (NameOf::Federation, Some("He\u{430}rt Federation")),
        (NameOf::Site, Some("Site 2")),
        (NameOf::Site, Some("S\u{456}te 2")),
    ] {
        assert!(found.contains(&wanted), "{wanted:?} is missing in {marks:?}");
    }
    // Nobody could tell two signers apart who look alike, so that there are none.
    let person = |name: &str| NewPerson {
        name: name.into(),
        roles: BTreeSet::from([Role::DataAccessApprover]),
        organisation: None,
    };
    let added = world.handle.add_person(world.who("ana"), person("s\u{430}m"), pass("ana")).await;
    assert!(
        matches!(&added, Err(PartyError::Input { reason, .. }) if reason.contains("looks like 'sam'")),
        "{added:?}"
    );
    let added = world.handle.add_person(world.who("ana"), person("S. A. M."), pass("ana")).await;
    assert!(matches!(&added, Err(PartyError::Input { .. })), "only case and signs tell it from 'sam': {added:?}");
    world.handle.add_person(world.who("ana"), person("samuel"), pass("ana")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_of_text_is_cut_and_refused_at_a_named_limit() {
    let mut world = World::new().await;
    let mut long = study(1, small_plan(1));
    long.terms.purpose = "<b>word</b> ".repeat(80_000);
    assert!(long.terms.purpose.len() > 900_000);
    world.connect().await;
    world.offer(&long).await;
    let review = world.handle.review(world.who("sam"), long.id, None).await.unwrap();
    let purpose = review.project.iter().find(|fact| fact.label == "Purpose").unwrap().words();
    assert_eq!((purpose.chars().count(), purpose.ends_with('…')), (limits::TEXT_CHARS + 1, true));
    assert!(purpose.starts_with("<b>word</b> <b>"), "it is text, and stays so");
    let found = review.findings.iter().find(|f| f.words.contains("limit TEXT_CHARS")).expect("no limit is named");
    assert!(found.refuses && found.words.contains("terms.purpose"), "{}", found.words);
    assert!(!review.approvable);
    assert!(serde_json::to_vec(&review).unwrap().len() < 100_000, "the page gets all of it");
}
