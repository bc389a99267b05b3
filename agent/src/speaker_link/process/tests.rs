//! A speaker's process played by a shell script.

use std::os::unix::fs::PermissionsExt;

use rustix::process::test_kill_process;
use tempfile::TempDir;

use super::*;

/// A test that waits longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(10);

struct Bench {
    directory: TempDir,
}

impl Bench {
    /// The script writes its arguments down and then does what `body` says.
    fn new(body: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bench = Self { directory };
        let script = bench.path("isopath-speaker");
        let arguments = bench.path("arguments");
        let text = format!(
            "#!/bin/sh\necho \"$@\" >> {}\n{body}\n",
            arguments.display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn process(&self, now: Instant) -> SpeakerProcess {
        let config = Path::new("d1.toml");
        let program = self.path("isopath-speaker");
        SpeakerProcess::new(program, config, self.directory.path(), now)
    }

    /// The arguments of each start.
    fn starts(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("arguments")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn started(&self, times: usize) {
        let wait = async {
            while self.starts().len() < times {
                tokio::task::yield_now().await;
            }
        };
        let outcome = timeout(DEADLINE, wait).await;
        assert!(outcome.is_ok(), "not {times} starts: {:?}", self.starts());
    }

    fn pid(&self) -> Pid {
        let text = std::fs::read_to_string(self.path("speaker.pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }
}

/// A script that lives until it is told to end.
const LIVES: &str = "trap 'exit 0' TERM\nwhile :; do sleep 0.05; done";

fn number(pid: Pid) -> u32 {
    u32::try_from(pid.as_raw_nonzero().get()).unwrap()
}

#[tokio::test]
async fn a_speaker_is_started_after_the_grace_and_ends_with_the_agent() {
    let bench = Bench::new(LIVES);
    let now = Instant::now();
    let mut process = bench.process(now);
    process.ensure(now);
    assert!(
        matches!(process.state, State::Unseen),
        "it was started at once"
    );
    process.ensure(now + GRACE);
    bench.started(1).await;
    assert_eq!(bench.starts(), ["run --config d1.toml --wait-for-agent"]);
    let pid = bench.pid();
    let group = rustix::process::getpgid(Some(pid)).unwrap();
    assert_eq!(group, pid, "a signal to the agent's group would reach it");
    assert!(
        process.connected(number(pid), number(pid)),
        "it is the agent's own"
    );

    process.ensure(now + 2 * GRACE);
    process.stop().await;
    assert!(test_kill_process(pid).is_err(), "it still runs");
    assert!(!bench.path("speaker.pid").exists());
    assert_eq!(
        bench.starts().len(),
        1,
        "a running speaker was started again"
    );
}

#[tokio::test]
async fn a_speaker_of_an_earlier_agent_is_taken_on_and_one_of_others_is_not() {
    let bench = Bench::new(LIVES);
    let now = Instant::now();
    let mut first = bench.process(now);
    first.ensure(now + GRACE);
    bench.started(1).await;
    let pid = bench.pid();
    // An agent that is killed runs no destructor.
    std::mem::forget(first);

    let mut others = bench.process(now);
    assert!(
        !others.connected(number(pid) + 1, number(pid) + 1),
        "somebody else's speaker was taken on"
    );
    others.ensure(now + GRACE);
    others.stop().await;
    assert_eq!(
        bench.starts().len(),
        1,
        "a speaker was started beside somebody else's"
    );
    assert!(
        test_kill_process(pid).is_ok(),
        "somebody else's speaker was stopped"
    );

    let mut second = bench.process(now);
    assert!(second.connected(number(pid), number(pid)));
    second.stop().await;
    // It is a child of this test that nobody has waited for yet, and counts as ended.
    let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
    assert!(ended.unwrap().is_some(), "it still runs");
    assert!(!bench.path("speaker.pid").exists());
}

#[tokio::test]
async fn an_upgraded_speaker_is_still_the_agents_own() {
    let bench = Bench::new(LIVES);
    let now = Instant::now();
    let mut process = bench.process(now);
    process.ensure(now + GRACE);
    bench.started(1).await;
    let origin = bench.pid();
    let mut successor = std::process::Command::new(bench.path("isopath-speaker"))
        .spawn()
        .unwrap();
    bench.started(2).await;
    kill_process(origin, Signal::KILL).unwrap();

    assert!(
        process.connected(successor.id(), number(origin)),
        "the successor counts as somebody else's"
    );
    process.ensure(now + 2 * GRACE);
    assert_eq!(bench.starts().len(), 2, "a third one was started");
    process.stop().await;
    let ended = successor.try_wait().unwrap();
    assert!(ended.is_some(), "the successor still runs");
}

#[tokio::test]
async fn a_speaker_that_dies_is_started_again_after_growing_delays() {
    let bench = Bench::new("exit 1");
    let mut now = Instant::now();
    let mut process = bench.process(now);
    now += GRACE;
    process.ensure(now);
    let mut delay = FIRST_RESTART;
    for start in 1..=4 {
        bench.started(start).await;
        let State::Child { child, .. } = &mut process.state else {
            panic!("no child after start {start}");
        };
        timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
        process.ensure(now);
        process.ensure(now + delay - Duration::from_millis(1));
        assert!(
            matches!(process.state, State::Unseen),
            "start {} came early",
            start + 1
        );
        if start < 4 {
            now += delay;
            assert!(process.ensure(now), "start {} did not come", start + 1);
            delay *= 2;
        }
    }
}

#[tokio::test]
async fn without_a_command_nothing_is_ever_started() {
    let now = Instant::now();
    let mut process = SpeakerProcess::foreign(now);
    process.ensure(now + 100 * GRACE);
    assert!(matches!(process.state, State::Foreign));
    assert!(!process.connected(1, 1));
}
