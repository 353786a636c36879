//! Studies and rosters: hostile texts, forged members, two sites with one name.

use expect_test::expect;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::StudyId;
use hospes_protocol::sign::Signed;
use hospes_protocol::study::{
    Controller, Member, MemberStatement, Roster, RosterError, Study, StudyFile, Terms, check_terms, read_terms,
};

use crate::world::{HEART, NOW, heart, key, site, terms};

#[test]
fn terms_that_would_mislead_those_who_sign_are_refused() {
    assert_eq!(check_terms(&terms()), Ok(()));
    let bad: [(&str, &dyn Fn(&mut Terms)); 14] = [
        ("terms.title", &|t| t.title.clear()),
        ("terms.title", &|t| t.title = "Heart\u{202E}".into()),
        ("terms.purpose", &|t| t.purpose = "  \n ".into()),
        ("terms.purpose", &|t| t.purpose = "ok\u{1b}[8mhidden".into()),
        ("terms.purpose", &|t| t.purpose = "x".repeat(4_001)),
        ("terms.requester.name", &|t| t.requester.name = "a\nb".into()),
        ("terms.requester.vouched_by", &|t| t.requester.vouched_by = Some(String::new())),
        ("terms.duo.0", &|t| t.duo = vec!["HMB".into()]),
        ("terms.duo", &|t| t.duo = vec!["DUO:0000006".into(); 65]),
        ("terms.disease", &|t| t.disease = Some("MONDO:1".into())),
        ("terms.purpose_of_use", &|t| t.purpose_of_use = Some("research".into())),
        ("terms.ethics", &|t| t.ethics = Some(String::new())),
        ("terms.recipients.0", &|t| t.recipients = vec!["\u{200B}".into()]),
        ("terms.controllers.0.contact", &|t| {
            t.controllers = vec![Controller { organisation: "o".into(), role: "r".into(), contact: "a\0".into() }];
        }),
    ];
    for (place, spoil) in bad {
        let mut terms = terms();
        spoil(&mut terms);
        let places: Vec<String> = check_terms(&terms).unwrap_err().problems.into_iter().map(|p| p.place).collect();
        assert_eq!(places, [place]);
    }
    let mut good = terms();
    good.duo = vec!["DUO:0000006".into(), "DUO:00000018".into()];
    good.disease = Some("MONDO:0005010".into());
    good.purpose = "Zweck:\n\t– Köln".into();
    assert_eq!(check_terms(&good), Ok(()));
}

#[test]
fn mistakes_in_terms_and_study_files_are_named() {
    let said = |text: &str| read_terms(text).unwrap_err().to_string();
    expect![[r#"
        terms.titel: no field 'titel', did you mean 'title'?
        terms.requester.organisation: is missing
        terms.title: is missing"#]]
    .assert_eq(&said("titel: a\npurpose: b\nrequester: { name: c }\n"));
    let study = |text: &str| StudyFile::read(text).map(|_| ()).map_err(|e| e.to_string());
    let indented: String = HEART.lines().map(|l| format!("  {l}\n")).collect();
    let whole =
        format!("terms: {{ title: t, purpose: p, requester: {{ name: n, organisation: o }} }}\nplan:\n{indented}");
    assert_eq!(study(&whole), Ok(()));
    let spoilt = whole
        .replace("purpose: p", "purpose: ''")
        .replace("data: read }", "data: raed }")
        .replace("plan:\n", "extra: 1\nplan:\n");
    expect![[r#"
        extra: a study has 'terms' and 'plan', and may have 'sweep', only
        terms.purpose: is blank; leave it out, and it reads 'not stated'
        plan.tasks.fill.inputs.data: no task 'raed', did you mean 'read'?
        plan.tasks.read: nothing that leads to a result reads its outputs; remove it"#]]
    .assert_eq(&study(&spoilt).unwrap_err());
    expect![[r#"
        terms: is missing
        plan: a plan is a mapping that begins with 'schema: hospes/plan/v1'"#]]
    .assert_eq(&study("plan: 3").unwrap_err());
    expect!["a study is a mapping with 'terms' and 'plan'"].assert_eq(&study("[]").unwrap_err());
}

#[test]
fn a_study_is_checked_before_it_is_shown() {
    let mut members = vec![site(1), site(2)];
    members.sort();
    let study = Study {
        id: StudyId::new(NOW, [1; 10]),
        federation: site(9),
        submitted: NOW,
        terms: terms(),
        plan: Canonical::new(heart()).unwrap(),
        sweep: None,
        members,
    };
    assert_eq!(study.check(), Ok(()));
    let mut twice = study.clone();
    twice.members[1] = twice.members[0];
    assert!(twice.check().unwrap_err().to_string().contains("members: "));
    let mut none = study.clone();
    none.members.clear();
    assert!(none.check().is_err());
    let mut plan = heart();
    plan.data.columns.push("num".into());
    let bad = Study { plan: Canonical::new(plan).unwrap(), ..study };
    assert!(bad.check().unwrap_err().to_string().contains("plan.data.columns.10: 'num' is the label"));
}

fn member(name: &str, number: u8) -> Member {
    let secret = key(100 + number);
    let statement = MemberStatement {
        federation: site(9),
        name: name.into(),
        organisation: format!("hospital {number}"),
        identity: secret.public(),
    };
    Member {
        site: secret.public().site_id(),
        name: name.into(),
        organisation: statement.organisation.clone(),
        identity: secret.public(),
        statement: Signed::new(statement, &secret).unwrap().signatures[0].signature,
    }
}

fn roster(mut members: Vec<Member>) -> Roster {
    members.sort_by_key(|m| m.site);
    Roster { federation: site(9), version: 3, at: NOW, members }
}

#[test]
fn a_roster_as_its_members_signed_it_is_accepted() {
    let good = roster(vec![member("Cleveland", 1), member("Long Beach", 2), member("Zürich", 3)]);
    assert_eq!(good.check(site(9)), Ok(()));
    assert_eq!(good.check(site(8)), Err(RosterError::Federation));
    assert_eq!(good.follows(&good), Ok(()));
    let newer = Roster { version: 4, ..good.clone() };
    assert_eq!(newer.follows(&good), Ok(()));
    assert_eq!(good.follows(&newer), Err(RosterError::Older { offered: 3, known: 4 }));
    let other = Roster { members: good.members[..2].to_vec(), ..good.clone() };
    assert_eq!(other.follows(&good), Err(RosterError::Contradiction(3)));
}

#[test]
fn a_forged_roster_is_refused() {
    let forged = |change: &dyn Fn(&mut Member)| {
        let mut first = member("Cleveland", 1);
        change(&mut first);
        roster(vec![first, member("Hungary", 2)]).check(site(9)).unwrap_err()
    };
    let forgery = RosterError::Forged(site(1));
    assert_eq!(forged(&|m| m.name = "Boston".into()), forgery);
    assert_eq!(forged(&|m| m.organisation = "hospital 2".into()), forgery);
    assert_eq!(forged(&|m| m.identity = key(50).public()), forgery);
    assert_eq!(forged(&|m| m.statement = member("Cleveland", 3).statement), forgery);
    // A site that was invented with a key of its own signs for itself; it is refused by its place in the approval.
    let swapped = forged(&|m| m.site = site(7));
    assert_eq!(swapped, RosterError::Forged(site(7)));
    let elsewhere = Roster { federation: site(8), ..roster(vec![member("Cleveland", 1)]) };
    assert_eq!(elsewhere.check(site(8)), Err(forgery));
}

#[test]
fn two_sites_with_one_name_are_refused() {
    for name in ["Cleveland", "cleveland", "CLEVE LAND", "Cleve-land"] {
        let twice = roster(vec![member("Cleveland", 1), member(name, 2)]);
        assert!(matches!(twice.check(site(9)), Err(RosterError::SameName(_))), "{name}");
    }
    let mut disorder = roster(vec![member("Cleveland", 1), member("Hungary", 2)]);
    disorder.members.reverse();
    assert_eq!(disorder.check(site(9)), Err(RosterError::Order));
    let same = Roster { members: vec![member("Cleveland", 1), member("Cleveland", 1)], ..disorder };
    assert_eq!(same.check(site(9)), Err(RosterError::Order));
    assert!(matches!(roster(vec![member("a\u{202E}b", 1)]).check(site(9)), Err(RosterError::Name { .. })));
}
