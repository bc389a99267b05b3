//! How an operation goes from step to step.

use isopath_api::desired::AdminState;
use isopath_api::operation::{OnDeadline, OperationState, StepName, StepState};

use super::steps::{AGENT_LOST, Facts, Verdict, judge, refusal};
use super::{Kind, Operation, Step, Target};
use crate::clock::Moment;
use crate::control::state::ClusterState;
use crate::guards::{self, Refusal};

/// What blocks an operation that is not done at its deadline.
const DEADLINE: &str = "deadline";

/// Where an operation stands, and what comes of that.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The operation as it is from now on.
    pub operation: Operation,
    /// What is wanted of its target from now on; nothing where that stays.
    pub admin: Option<AdminState>,
    /// Whether its real servers are to be taken out.
    pub removes: bool,
}

/// Where an operation that has not ended stands now.
pub fn progress(
    operation: &Operation,
    cluster: &ClusterState,
    now: Moment,
    started: Moment,
) -> Progress {
    let mut machine = Machine {
        next: Progress {
            operation: operation.clone(),
            admin: None,
            removes: false,
        },
        facts: Facts {
            cluster,
            now,
            started,
        },
    };
    machine.run();
    machine.next
}

/// The operation as it is when someone cancels it: what it did is undone.
pub fn cancelling(operation: &Operation, by: &str, now: Moment) -> Operation {
    let mut next = operation.clone();
    for step in &mut next.steps {
        match step.state {
            StepState::Now | StepState::Ahead => {
                step.evidence = format!("cancelled by {by}");
                step.state = StepState::Skipped;
                step.since = Some(now.wall);
            }
            StepState::Done | StepState::Skipped | StepState::Overdue => {}
        }
    }
    let back = match (operation.kind, &operation.target) {
        (Kind::Drain, _) => StepName::Restore,
        (Kind::Undrain, Target::RealServer(..)) => StepName::Weight,
        (Kind::Undrain, Target::Director(_) | Target::Vip(_)) => StepName::Withdraw,
    };
    next.steps.push(Step {
        name: back,
        state: StepState::Now,
        since: Some(now.wall),
        evidence: String::new(),
    });
    next.state = OperationState::Cancelling;
    next.blocked_by.clear();
    next.detail = format!("cancelled by {by}; waiting for what undoes it");
    next
}

struct Machine<'a> {
    next: Progress,
    facts: Facts<'a>,
}

impl Machine<'_> {
    fn run(&mut self) {
        let cluster = self.facts.cluster;
        if !self.next.operation.target.is_declared(&cluster.declaration) {
            let detail = declared_no_more(&self.next.operation.target);
            self.end(OperationState::Failed, detail);
            return;
        }
        self.put_at_stake();
        if let Err(refusal) = self.guards_kept() {
            self.put_back(&refusal);
            return;
        }
        if self.has_grown() {
            self.quiesce_anew();
            return;
        }
        while let Some(step) = self.next.operation.step() {
            let verdict = judge(&mut self.next.operation, step, self.facts);
            let verdict = self.allowed_to_withdraw(step, verdict);
            match self.at_deadline(step, verdict) {
                Verdict::Done(evidence) => {
                    self.leave(step, StepState::Done, evidence);
                    if self.begin_next() {
                        return;
                    }
                }
                Verdict::Waits(what) | Verdict::Unheard(what) => return self.wait(step, what),
                Verdict::Blocked(by, what) => return self.block(by, what),
            }
        }
        self.succeed();
    }

    /// Whether the guards still allow what is under way.
    fn guards_kept(&self) -> Result<(), Refusal> {
        let operation = &self.next.operation;
        let is_told = operation.step() != Some(StepName::Guard);
        if is_told && operation.state != OperationState::Cancelling {
            let Facts {
                cluster,
                now,
                started,
            } = self.facts;
            guards::kept(cluster, operation, (now, started))
        } else {
            Ok(())
        }
    }

    /// What a director announces until it has withdrawn is at stake as well, however late it
    /// began to.
    fn put_at_stake(&mut self) {
        let Facts { cluster, now, .. } = self.facts;
        let operation = &mut self.next.operation;
        let (Target::Director(name), Kind::Drain) = (&operation.target, operation.kind) else {
            return;
        };
        if !matches!(operation.step(), Some(StepName::Cost | StepName::Withdraw)) {
            return;
        }
        let Some(director) = cluster.directors.get(name) else {
            return;
        };
        // What it may announce for all that is known was written down when it was admitted.
        let says = director.fresh(now).is_some_and(|it| it.speaker.is_some());
        let announced = says.then(|| guards::at_stake(cluster, director, now));
        for vip in announced.into_iter().flatten() {
            if !operation.at_stake.contains(&vip) {
                operation.at_stake.push(vip);
            }
        }
    }

    /// Whether some of the real servers that are being drained are in service: a declaration gave
    /// them to another service meanwhile.
    fn has_grown(&self) -> bool {
        let operation = &self.next.operation;
        let is_told = matches!(
            operation.step(),
            Some(StepName::Weight | StepName::Connections | StepName::Remove)
        );
        let cluster = self.facts.cluster;
        let is_active =
            |(service, server)| cluster.quiesced.server(service, server) == AdminState::Active;
        let mut members = operation.target.members(&cluster.declaration).into_iter();
        is_told && operation.kind == Kind::Drain && members.any(is_active)
    }

    /// Takes all of the real servers out of service, from the weight on; those that are being
    /// removed at once.
    fn quiesce_anew(&mut self) {
        let now = self.facts.now.wall;
        self.next.admin = Some(AdminState::Draining);
        let operation = &mut self.next.operation;
        let removes = operation.step() == Some(StepName::Remove);
        let step = if removes {
            self.next.removes = true;
            StepName::Remove
        } else {
            for step in &mut operation.steps {
                let (state, since) = match step.name {
                    StepName::Weight => (StepState::Now, Some(now)),
                    StepName::Connections => (StepState::Ahead, None),
                    _ => continue,
                };
                (step.state, step.since) = (state, since);
                step.evidence.clear();
            }
            StepName::Weight
        };
        let what = "another service has it now: waiting for the acknowledgement of";
        self.wait(step, format!("{what} {}", step.as_str()));
    }

    /// A guard was lost: what was taken out goes back until the guard allows it again.
    fn put_back(&mut self, refusal: &Refusal) {
        let now = self.facts.now.wall;
        let operation = &mut self.next.operation;
        for step in &mut operation.steps {
            // What was left out on the operator's word stays so.
            if step.state != StepState::Skipped {
                step.state = StepState::Ahead;
                step.since = None;
                step.evidence.clear();
            }
        }
        if let Some(first) = operation.steps.first_mut() {
            first.state = StepState::Now;
            first.since = Some(now);
        }
        operation.quiet.clear();
        if let Target::RealServer(..) = operation.target {
            self.next.admin = Some(AdminState::Active);
        }
        let operation = &self.next.operation;
        let (target, why) = (&operation.target, &refusal.detail);
        let detail = format!("{why}: {target} is back in service until that is over");
        self.block(refusal.guard, detail);
    }

    /// Before the generation that withdraws a director goes out, the guards are asked as strictly
    /// as for its admission: that somebody silent was heard of will not do.
    fn refused_to_withdraw(&self, step: StepName) -> Option<(&'static str, String)> {
        let operation = &self.next.operation;
        let is_cost = step == StepName::Cost && operation.state != OperationState::Cancelling;
        is_cost.then(|| refusal(operation, self.facts)).flatten()
    }

    fn allowed_to_withdraw(&self, step: StepName, verdict: Verdict) -> Verdict {
        if matches!(verdict, Verdict::Done(_))
            && let Some((guard, detail)) = self.refused_to_withdraw(step)
        {
            return Verdict::Blocked(guard, detail);
        }
        verdict
    }

    /// What a step that is not over becomes once the deadline has passed.
    fn at_deadline(&mut self, step: StepName, verdict: Verdict) -> Verdict {
        let operation = &self.next.operation;
        let is_over = self.facts.now.wall >= operation.deadline_at;
        // A removal is what the deadline has brought about.
        let is_exempt = operation.state == OperationState::Cancelling || step == StepName::Remove;
        if !is_over || is_exempt {
            return verdict;
        }
        let what = match verdict {
            // What is unknown ends nothing, whatever was asked for.
            Verdict::Done(_) | Verdict::Unheard(_) | Verdict::Blocked(AGENT_LOST, _) => {
                return verdict;
            }
            Verdict::Waits(what) | Verdict::Blocked(_, what) => what,
        };
        match (operation.on_deadline, step) {
            // No deadline overrides a guard.
            (OnDeadline::Finish, StepName::Cost)
                if let Some((guard, detail)) = self.refused_to_withdraw(step) =>
            {
                Verdict::Blocked(guard, detail)
            }
            (
                OnDeadline::Finish,
                StepName::Cost
                | StepName::Set
                | StepName::Traffic
                | StepName::Connections
                | StepName::Return,
            )
            | (OnDeadline::Remove, StepName::Connections) => {
                self.next.removes = operation.on_deadline == OnDeadline::Remove;
                self.leave(step, StepState::Overdue, what.clone());
                Verdict::Done(what)
            }
            (OnDeadline::Hold | OnDeadline::Finish | OnDeadline::Remove, _) => {
                Verdict::Blocked(DEADLINE, what)
            }
        }
    }

    /// Leaves a step, unless it was left already.
    fn leave(&mut self, name: StepName, state: StepState, evidence: String) {
        let now = self.facts.now.wall;
        let steps = &mut self.next.operation.steps;
        let mut steps = steps.iter_mut();
        if let Some(step) = steps.find(|it| it.name == name && it.state == StepState::Now) {
            *step = Step {
                name,
                state,
                since: Some(now),
                evidence,
            };
        }
    }

    /// Begins the next step; whether that tells directors something they have to acknowledge.
    fn begin_next(&mut self) -> bool {
        let now = self.facts.now.wall;
        let removes = self.next.removes;
        let operation = &mut self.next.operation;
        let mut ahead = operation.steps.iter_mut();
        let Some(step) = ahead.find(|step| step.state == StepState::Ahead) else {
            return false;
        };
        step.since = Some(now);
        if step.name == StepName::Remove && !removes {
            step.state = StepState::Skipped;
            step.evidence = "nothing was left".to_owned();
            return false;
        }
        step.state = StepState::Now;
        let (name, begun) = (step.name, Self::tells(step.name));
        if name == StepName::Weight {
            self.next.admin = Some(AdminState::Draining);
        }
        if begun {
            let what = format!("waiting for the acknowledgement of {}", name.as_str());
            self.wait(name, what);
        }
        begun
    }

    /// Whether a step begins with another generation.
    fn tells(step: StepName) -> bool {
        match step {
            StepName::Cost | StepName::Withdraw | StepName::Weight | StepName::Remove => true,
            StepName::Guard
            | StepName::Set
            | StepName::Traffic
            | StepName::Connections
            | StepName::Restore
            | StepName::Return => false,
        }
    }

    fn wait(&mut self, step: StepName, what: String) {
        let operation = &mut self.next.operation;
        operation.blocked_by.clear();
        operation.detail = what;
        if operation.state != OperationState::Cancelling {
            operation.state = state_at(step);
        }
    }

    fn block(&mut self, by: &str, what: String) {
        let operation = &mut self.next.operation;
        operation.blocked_by = vec![by.to_owned()];
        operation.detail = what;
        if operation.state != OperationState::Cancelling {
            operation.state = OperationState::Blocked;
        }
    }

    fn succeed(&mut self) {
        let operation = &self.next.operation;
        if operation.state == OperationState::Cancelling {
            let detail = format!("undone; {} is as it was", operation.target);
            return self.end(OperationState::Cancelled, detail);
        }
        let steps = operation.steps.iter();
        let left: Vec<String> = steps
            .filter(|step| step.state == StepState::Overdue)
            .map(|step| format!("{} was not over: {}", step.name.as_str(), step.evidence))
            .collect();
        let target = &operation.target;
        let done = match operation.kind {
            Kind::Drain => format!("{target} is safe to work on"),
            Kind::Undrain => format!("{target} is in service"),
        };
        let detail = match (left.as_slice(), operation.steps.last()) {
            ([], Some(last)) if !last.evidence.is_empty() => format!("{done}: {}", last.evidence),
            ([], _) => done,
            (left, _) => format!("{target}: ended at its deadline; {}", left.join("; ")),
        };
        if operation.kind == Kind::Drain {
            self.next.admin = Some(AdminState::Drained);
        }
        self.end(OperationState::Succeeded, detail);
    }

    fn end(&mut self, state: OperationState, detail: String) {
        let operation = &mut self.next.operation;
        operation.state = state;
        operation.detail = detail;
        operation.blocked_by.clear();
        operation.ended_at = Some(self.facts.now.wall);
    }
}

/// How an operation ends whose target is not there any more: what was asked for did not happen.
pub(crate) fn declared_no_more(target: &Target) -> String {
    format!("{target} is declared no more")
}

/// The state of an operation at a step that nothing blocks.
fn state_at(step: StepName) -> OperationState {
    match step {
        StepName::Guard => OperationState::Pending,
        StepName::Cost
        | StepName::Withdraw
        | StepName::Weight
        | StepName::Remove
        | StepName::Restore => OperationState::Applying,
        StepName::Set | StepName::Traffic | StepName::Connections | StepName::Return => {
            OperationState::Settling
        }
    }
}
