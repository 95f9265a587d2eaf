//! One candidate by a table; two of them with a network that loses what it likes, clocks that go
//! wrong, and a server that knows resource versions.

use proptest::prelude::*;

use super::*;

fn seconds(n: u64) -> Moment {
    Duration::from_secs(n)
}

fn lease(version: u64, holder: &str) -> Seen {
    Seen {
        version: version.to_string(),
        holder: Some(holder.to_owned()).filter(|holder| !holder.is_empty()),
        duration: DURATION,
    }
}

fn follower() -> Memory {
    Memory::default()
}

fn leader() -> Memory {
    let mut memory = Memory::default();
    memory.won(seconds(100));
    memory
}

#[test]
fn what_a_candidate_does() {
    for (mut memory, seen, at, step) in [
        (follower(), None, 0, Step::Create),
        (follower(), Some(lease(1, "")), 0, Step::Take),
        (follower(), Some(lease(1, "a")), 0, Step::Take),
        (follower(), Some(lease(1, "b")), 1000, Step::Wait),
        (leader(), Some(lease(1, "a")), 109, Step::Renew),
        (leader(), Some(lease(1, "a")), 110, Step::Lost),
        (leader(), Some(lease(1, "b")), 101, Step::Lost),
        (leader(), Some(lease(1, "")), 101, Step::Lost),
        (leader(), None, 101, Step::Create),
    ] {
        let was = format!("{memory:?} {seen:?} at {at}");
        assert_eq!(
            memory.decide("a", seen.as_ref(), seconds(at)),
            step,
            "{was}"
        );
    }
}

#[test]
fn a_lease_is_over_when_no_renewal_was_seen_for_its_duration() {
    let mut memory = follower();
    let mut at = |version, now| memory.decide("a", Some(&lease(version, "b")), seconds(now));
    assert_eq!(at(1, 100), Step::Wait);
    assert_eq!(at(1, 114), Step::Wait);
    assert_eq!(at(2, 116), Step::Wait, "it was renewed meanwhile");
    assert_eq!(at(2, 130), Step::Wait);
    assert_eq!(at(2, 131), Step::Take);
}

/// One process and its way to the server.
#[derive(Debug)]
struct Process {
    name: &'static str,
    memory: Memory,
    /// How fast its clock goes, in hundredths; what it showed at the beginning does not matter.
    rate: u64,
    next: u64,
    /// What it is about to write, when it began to, and the version that it read.
    writes: Option<(Step, Moment, Option<u64>)>,
}

impl Process {
    fn clock(&self, at: u64) -> Moment {
        Duration::from_millis(at * self.rate / 100)
    }

    fn leads(&self, at: u64) -> bool {
        !self.memory.left(self.clock(at)).is_zero()
    }
}

/// What happens to a call: it works, is not done, or is done and nobody hears of it.
#[derive(Debug, Clone, Copy)]
enum Luck {
    Good,
    NotDone,
    NotHeard,
}

/// The server's lease: version and holder.
#[derive(Debug, Default)]
struct Server {
    version: u64,
    holder: Option<&'static str>,
}

impl Server {
    /// One call of a process, which ends `pause` after the one before; whether it begins to lead.
    fn call(&mut self, process: &mut Process, luck: Luck, pause: u64) -> bool {
        let (at, now) = (process.next, process.clock(process.next));
        process.next = at + pause;
        let retry = |process: &mut Process| process.next = at + 2000 + pause;
        if process.memory.leads() && !process.leads(at) {
            // It ended, and its pod begins another life.
            process.memory = Memory::default();
            process.writes = None;
            retry(process);
            return false;
        }
        let Some((step, began, version)) = process.writes.take() else {
            if matches!(luck, Luck::Good) {
                let seen =
                    (self.version > 0).then(|| lease(self.version, self.holder.unwrap_or("")));
                match process.memory.decide(process.name, seen.as_ref(), now) {
                    Step::Wait => retry(process),
                    Step::Lost => {
                        process.memory = Memory::default();
                        retry(process);
                    }
                    step => {
                        let version = seen.map(|_| self.version);
                        process.writes = Some((step, now, version));
                    }
                }
            } else {
                retry(process);
            }
            return false;
        };
        retry(process);
        let fits = version.map_or(self.version == 0, |version| version == self.version);
        let done = fits && !matches!(luck, Luck::NotDone);
        if done {
            self.version += 1;
            self.holder = Some(process.name);
        }
        if done && matches!(luck, Luck::Good) {
            let before = process.leads(at);
            process.memory.won(began);
            return step != Step::Renew || !before;
        }
        if !fits && process.memory.leads() {
            process.memory = Memory::default();
        }
        false
    }
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        4 => Just(Luck::Good),
        1 => Just(Luck::NotDone),
        1 => Just(Luck::NotHeard),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn two_never_lead_and_one_always_comes_to(
        calls in prop::collection::vec((luck(), 1_u64..6000), 0..120),
        rates in (88_u64..112, 88_u64..112),
        late in 0_u64..20_000,
    ) {
        let process = |name, rate, next| Process {
            name, memory: Memory::default(), rate, next, writes: None,
        };
        let mut server = Server::default();
        let mut all = [process("a", rates.0, 0), process("b", rates.1, late)];
        let quiet = std::iter::repeat_n((Luck::Good, 10_u64), 80);
        for (luck, pause) in calls.into_iter().chain(quiet) {
            let turn = usize::from(all[1].next < all[0].next);
            let at = all[turn].next;
            if server.call(&mut all[turn], luck, pause) {
                prop_assert!(!all[1 - turn].leads(at), "two lead at {at}: {all:?}");
            }
        }
        let end = all[0].next.max(all[1].next);
        prop_assert!(all.iter().any(|process| process.leads(end.min(process.next))), "nobody leads: {all:?}");
    }
}
