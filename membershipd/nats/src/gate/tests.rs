use super::*;
use crate::system::Server;

const S: &str = "CONTROL/KV_x";

fn held(last: u64) -> Held {
    Held { replicas: 3, leader: Some("a".into()), messages: last, bytes: last, first: 1, last }
}

fn view(lasts: [u64; 3]) -> View {
    let server = |last| Server {
        trouble: None,
        meta_leader: Some("b".into()),
        meta_size: 3,
        streams: [(S.to_owned(), held(last))].into(),
    };
    View { servers: ["a", "b", "c"].map(str::to_owned).into_iter().zip(lasts.map(server)).collect() }
}

fn change(act: impl FnOnce(&mut Server)) -> View {
    let mut view = view([5, 5, 5]);
    act(view.servers.get_mut("c").unwrap());
    view
}

/// Gives looks half a second apart; the last verdict.
fn after(gate: &mut Gate, from: Instant, views: impl IntoIterator<Item = View>) -> (Verdict, Instant) {
    let (mut verdict, mut now) = (Verdict::Settling, from);
    for view in views {
        verdict = gate.take(view, now);
        now += Duration::from_millis(500);
    }
    (verdict, now)
}

#[test]
fn a_gate_opens_only_after_seconds_without_a_doubt() {
    let (mut gate, now) = (Gate::new(3), Instant::now());
    let (verdict, now) = after(&mut gate, now, std::iter::repeat_n(view([5, 5, 5]), 10));
    assert_eq!(verdict, Verdict::Settling);
    // One doubt, and it begins anew.
    let (verdict, now) =
        after(&mut gate, now, [change(|server| server.trouble = Some("catching up".into()))]);
    assert!(matches!(verdict, Verdict::Doubt(why) if why.contains("catching up")));
    let (verdict, now) = after(&mut gate, now, std::iter::repeat_n(view([5, 5, 5]), 10));
    assert_eq!(verdict, Verdict::Settling);
    assert_eq!(after(&mut gate, now, [view([5, 5, 5])]).0, Verdict::Open);
}

#[test]
fn seconds_that_nobody_looked_at_do_not_count() {
    let (mut gate, now) = (Gate::new(3), Instant::now());
    assert_eq!(gate.take(view([5, 5, 5]), now), Verdict::Settling);
    assert_eq!(gate.take(view([5, 5, 5]), now + STEADY + LONGEST_GAP), Verdict::Settling);
}

#[test]
fn each_single_doubt_keeps_it_shut() {
    let cases: Vec<(View, &str)> = vec![
        (View::default(), "0 of 3 servers"),
        (change(|server| server.meta_leader = None), "agree"),
        (change(|server| server.meta_leader = Some("c".into())), "agree"),
        (change(|server| server.meta_size = 2), "counts 2"),
        (change(|server| server.streams.clear()), "2 of 3 servers hold"),
        (change(|server| server.streams.get_mut(S).unwrap().leader = None), "agreed"),
        (change(|server| server.streams.get_mut(S).unwrap().leader = Some("c".into())), "agreed"),
        (change(|server| server.streams.get_mut(S).unwrap().leader = Some("gone".into())), "agreed"),
    ];
    for (view, why) in cases {
        let found = doubt(&view, 3).unwrap_or_else(|| panic!("{why}: nothing found"));
        assert!(found.contains(why), "{why}: {found}");
    }
    assert_eq!(doubt(&view([5, 5, 5]), 3), None);
}

#[test]
fn a_replica_that_holds_nothing_or_lags_keeps_it_shut_although_it_calls_itself_well() {
    for (lasts, is_named) in [([5, 5, 0], true), ([5, 5, 4], true)] {
        let (mut gate, now) = (Gate::new(3), Instant::now());
        let (verdict, _) = after(&mut gate, now, std::iter::repeat_n(view(lasts), 20));
        assert!(matches!(verdict, Verdict::Doubt(why) if why.contains("`c`") == is_named));
    }
    // The same numbers and other contents.
    let (mut gate, now) = (Gate::new(3), Instant::now());
    let other = change(|server| server.streams.get_mut(S).unwrap().messages = 4);
    let (verdict, _) = after(&mut gate, now, std::iter::repeat_n(other, 20));
    assert!(matches!(verdict, Verdict::Doubt(why) if why.contains("the same")));
}

#[test]
fn writes_that_go_on_do_not_keep_it_shut() {
    // A look never meets all servers at the same moment but once.
    let (mut gate, now) = (Gate::new(3), Instant::now());
    let looks = (0..12).map(|number| {
        let leader = 10 * (number + 1);
        if number == 6 { view([leader, leader, leader]) } else { view([leader, leader - 1, leader - 2]) }
    });
    assert_eq!(after(&mut gate, now, looks).0, Verdict::Open);
}

#[test]
fn a_replica_that_was_equal_once_and_then_stands_still_keeps_it_shut() {
    let (mut gate, now) = (Gate::new(3), Instant::now());
    let looks = (0..20).map(|number| view([5 + number, 5 + number, 5]));
    let (verdict, _) = after(&mut gate, now, looks);
    assert!(matches!(verdict, Verdict::Doubt(why) if why.contains("`c` is behind")));
}
