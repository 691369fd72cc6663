use std::time::Instant;

use super::*;

#[test]
fn walking_takes_every_session_in_turn_and_begins_again() {
    let registry = Arc::new(Registry::new(7));
    let [pulse, other] = [(); 2].map(|()| Arc::new(UpstreamPulse::new(Instant::now())));
    assert!(registry.after(None, &pulse).is_none(), "nobody to speak to yet");
    let ids: Vec<_> = (0..6).map(|_| registry.next_id()).collect();
    let app = |index| if index % 2 == 0 { &pulse } else { &other };
    let entries: Vec<_> = ids.iter().enumerate().map(|(n, id)| registry.enter(*id, Arc::default(), app(n))).collect();
    assert_eq!((registry.of(&pulse).len(), registry.all().len()), (3, 6));
    let mut at = None;
    let mut seen = Vec::new();
    for _ in 0..4 {
        at = registry.after(at, &pulse).map(|(id, _)| id);
        seen.extend(at);
    }
    assert_eq!(seen, [ids[0], ids[2], ids[4], ids[0]], "and none of another app");
    drop(entries);
    assert!(registry.is_empty());
}
