//! How a batch is split until its culprit stands alone.

use proptest::prelude::*;

use super::*;

/// A batch whose requests begin at these places, and go on to the next one's.
fn batch(emails: u16, begins: &[u16]) -> Manifest {
    let project = ProjectId::parse("p").unwrap();
    let texts: Vec<Email> = (0..emails).map(|n| Email::parse(&format!("{n}@x")).unwrap()).collect();
    let mut bounds: Vec<u16> = begins.iter().map(|at| at % emails).chain([0, emails]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    let members = bounds.windows(2).zip(0u8..).map(|(ends, n)| Member {
        request: RequestDigest([n; 32]),
        spans: vec![Span { request_at: 0, body_at: ends[0], len: ends[1] - ends[0] }],
    });
    let members: Vec<Member> = members.collect();
    Manifest {
        id: ManifestId(1),
        root: ManifestId(1),
        body: body(&project, texts.iter()),
        project,
        emails,
        key: KeyBase::derive(&members),
        members,
        fate: Fate::never_sent(),
    }
}

/// How many calls it costs to find the culprit, beside the one that met it first.
fn extra_calls(mut manifest: Manifest, mut culprit: u16) -> u32 {
    let mut calls = 0;
    while let Some([first, second]) = split(&manifest) {
        calls += 2;
        let half = if culprit < first.emails {
            first
        } else {
            culprit -= first.emails;
            second
        };
        let Draft { body, emails, members, .. } = half;
        manifest = Manifest { body, emails, members, ..manifest };
    }
    calls
}

#[test]
fn borders_far_from_the_middle_cost_no_more_calls_than_halves() {
    // Requests of 250, 562 and 188 emails.
    assert!(extra_calls(batch(1000, &[250, 812]), 811) <= 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_culprit_stands_alone_within_the_bound_of_the_contract(
        emails in 1..=1000u16,
        begins in proptest::collection::vec(0..1000u16, 0..40),
        culprit in 0..1000u16,
    ) {
        let calls = extra_calls(batch(emails, &begins), culprit % emails);
        prop_assert!(f64::from(calls) <= 2.0 * f64::from(emails).log2() + 2.0, "{calls} for {emails}");
    }
}
