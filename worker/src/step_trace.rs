//! A profiled step as spans of OpenTelemetry: one trace for each step, with all ranks in it.
//!
//! Nobody hands identities around. They follow from the run, the generation, the members of the group and the step, which
//! all ranks know, so that what each rank tells falls into one trace. Its root is the step, told by rank 0; under it stands
//! each rank, and under that its phases, its reductions, and the buckets and parts of the model inside the phases. The
//! operators are left out: there are some hundreds in a step, and the file for Perfetto has them.

use std::time::{Duration, SystemTime};

use domain::engine::Assignment;
use telemetry::{FinishedSpan, KeyValue, Spans};

use crate::trace::{Kind, Span};

/// Spans of one step and rank. A step with more loses parts of the model first.
const SPANS_MAX: usize = 4096;

/// What tells a step's identity from that of any other text.
const CONTEXT: &str = "phalanx 2026 trace of a step";

/// Tells the collector the profiled steps of one rank.
pub(crate) struct StepTracer {
    group: Group,
    spans: Spans,
}

impl StepTracer {
    pub(crate) fn new(spans: Spans, assignment: &Assignment) -> Self {
        Self { group: Group::of(assignment), spans }
    }

    /// Puts a step into the queue.
    pub(crate) fn tell(&self, step: &WholeStep<'_>) {
        self.group.spans_of(step).into_iter().for_each(|span| self.spans.send(span));
    }
}

/// A step that is over, as one rank saw it.
#[derive(Clone, Debug)]
pub(crate) struct WholeStep<'a> {
    pub(crate) number: u64,
    /// When it began, by the clock on the wall.
    pub(crate) wall: SystemTime,
    /// The same moment by the clock of `spans`.
    pub(crate) begin: Duration,
    /// By the clock of `spans`.
    pub(crate) end: Duration,
    /// Samples that this rank read.
    pub(crate) samples: u64,
    /// What it is made of, without the step itself.
    pub(crate) spans: &'a [Span],
}

/// The group that makes a step, and this worker's place in it.
#[derive(Clone, Debug)]
struct Group {
    run: String,
    generation: u64,
    /// By rank. A run's name is known to one coordinator; these are drawn at random.
    members: Vec<u64>,
    rank: u32,
}

impl Group {
    fn of(assignment: &Assignment) -> Self {
        Self {
            run: assignment.trial.run.to_string(),
            generation: assignment.generation.0,
            members: assignment.members.iter().map(|member| member.id.0).collect(),
            rank: assignment.rank.0,
        }
    }

    /// The identity of a step's trace: the same on every rank.
    fn trace(&self, step: u64) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&(self.run.len() as u64).to_le_bytes());
        hasher.update(self.run.as_bytes());
        for number in [self.generation, step].iter().chain(&self.members) {
            hasher.update(&number.to_le_bytes());
        }
        first(&hasher.finalize())
    }

    /// The spans that this rank tells of a step: whole before parts, so that if there are too many, parents are there.
    fn spans_of(&self, step: &WholeStep<'_>) -> Vec<FinishedSpan> {
        let WholeStep { number, wall, begin, end, samples, spans } = *step;
        let Self { run, generation, members, rank } = self;
        let trace = self.trace(number);
        let at = |time: Duration| wall + time.saturating_sub(begin);
        let span = |id, parent, name, [begin, end]: [Duration; 2], attributes| FinishedSpan {
            trace,
            id,
            parent,
            name,
            begin: at(begin),
            end: at(end),
            attributes,
        };
        let of_group = || {
            vec![
                KeyValue::new("phalanx.run", run.clone()),
                KeyValue::new("phalanx.generation", signed(*generation)),
                KeyValue::new("phalanx.step", signed(number)),
                KeyValue::new("phalanx.world_size", members.len() as i64),
            ]
        };

        let of_step = id(&trace, &[STEP]);
        let of_rank = id(&trace, &[RANK, u64::from(*rank)]);
        let mut told = Vec::new();
        if *rank == 0 {
            told.push(span(of_step, None, format!("step {number}"), [begin, end], of_group()));
        }
        let operations = spans.iter().filter(|span| span.kind == Kind::Layer).map(|span| span.operations).sum();
        let mut attributes = of_group();
        attributes.push(KeyValue::new("phalanx.rank", i64::from(*rank)));
        attributes.push(KeyValue::new("phalanx.worker", format!("{:016x}", members[*rank as usize])));
        attributes.push(KeyValue::new("phalanx.samples", signed(samples)));
        attributes.push(KeyValue::new("phalanx.matmul_flops", signed(operations)));
        let place_of_rank = told.len();
        told.push(span(of_rank, Some(of_step), format!("rank {rank}"), [begin, end], attributes));

        let mut left_out = 0;
        let identity = |index: usize| id(&trace, &[PART, u64::from(*rank), index as u64]);
        let phases: Vec<(usize, &Span)> =
            spans.iter().enumerate().filter(|(_, part)| part.kind == Kind::Phase).collect();
        for kind in [Kind::Phase, Kind::Reduction, Kind::Bucket, Kind::Layer] {
            for (index, part) in spans.iter().enumerate().filter(|(_, part)| part.kind == kind) {
                if told.len() == SPANS_MAX {
                    left_out += 1;
                    continue;
                }
                let parent = phase_of(part, &phases).map_or(of_rank, identity);
                let mut attributes = vec![KeyValue::new("phalanx.kind", kind.name())];
                if part.operations > 0 {
                    attributes.push(KeyValue::new("phalanx.matmul_flops", signed(part.operations)));
                }
                told.push(span(identity(index), Some(parent), part.name.clone(), [part.begin, part.end], attributes));
            }
        }
        if left_out > 0 {
            told[place_of_rank].attributes.push(KeyValue::new("phalanx.parts_left_out", left_out));
        }
        told
    }
}

/// The phase that a bucket or a part of the model lies in; what is nowhere inside belongs to the rank.
fn phase_of(part: &Span, phases: &[(usize, &Span)]) -> Option<usize> {
    match part.kind {
        Kind::Step | Kind::Phase | Kind::Reduction => None,
        Kind::Layer | Kind::Operator | Kind::Bucket => {
            let holds = |phase: &Span| phase.phase == part.phase && phase.begin <= part.begin && part.end <= phase.end;
            phases.iter().find(|(_, phase)| holds(phase)).map(|(index, _)| *index)
        }
    }
}

/// What an identity is made for.
const STEP: u64 = 0;
const RANK: u64 = 1;
const PART: u64 = 2;

/// The identity of a span of a trace.
fn id(trace: &[u8; 16], of: &[u64]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(trace);
    of.iter().for_each(|number| {
        hasher.update(&number.to_le_bytes());
    });
    first(&hasher.finalize())
}

/// The first bytes of a hash. All zero would be no identity.
fn first<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&hash.as_bytes()[..N]);
    if bytes == [0; N] {
        bytes[0] = 1;
    }
    bytes
}

/// OpenTelemetry has no numbers without a sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn group(rank: u32) -> Group {
        Group { run: "digits".to_owned(), generation: 3, members: vec![7, 9], rank }
    }

    fn part(kind: Kind, name: &str, phase: &'static str, begin: u64, end: u64, operations: u64) -> Span {
        let [begin, end] = [begin, end].map(Duration::from_micros);
        Span { kind, name: name.to_owned(), phase, begin, end, operations }
    }

    /// Two micro-batches, in the order in which the recorder notes them.
    fn parts() -> Vec<Span> {
        vec![
            part(Kind::Phase, "data", "data", 100, 110, 0),
            part(Kind::Bucket, "bucket 0", "backward", 140, 145, 0),
            part(Kind::Phase, "forward", "forward", 110, 130, 0),
            part(Kind::Phase, "backward", "backward", 130, 150, 0),
            part(Kind::Layer, "vit", "forward", 112, 130, 500),
            part(Kind::Operator, "linear", "forward", 112, 120, 500),
            part(Kind::Layer, "vit", "backward", 130, 149, 1000),
            part(Kind::Phase, "forward", "forward", 150, 160, 0),
            part(Kind::Phase, "backward", "backward", 160, 170, 0),
            part(Kind::Layer, "vit", "backward", 160, 165, 0),
            part(Kind::Phase, "reduce", "reduce", 170, 180, 0),
            part(Kind::Reduction, "bucket 0", "", 146, 178, 0),
        ]
    }

    fn step(spans: &[Span]) -> WholeStep<'_> {
        let [begin, end] = [100, 200].map(Duration::from_micros);
        WholeStep { number: 12, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(9), begin, end, samples: 32, spans }
    }

    #[test]
    fn identities_follow_from_what_all_ranks_know_and_from_nothing_else() {
        let trace = group(0).trace(12);
        assert_eq!(trace, group(1).trace(12));
        let others = [
            group(0).trace(13),
            Group { run: "digit".to_owned(), ..group(0) }.trace(12),
            Group { generation: 4, ..group(0) }.trace(12),
            Group { members: vec![7, 10], ..group(0) }.trace(12),
            Group { members: vec![9, 7], ..group(0) }.trace(12),
        ];
        assert!(others.iter().all(|other| *other != trace && *other != [0; 16]));
        // As Python's blake3 has it. They stay what they are, or workers of two versions would not meet.
        assert_eq!(hex(&trace), "f640676606973b9cecf70f123cb4b189");
        assert_eq!(hex(&id(&trace, &[STEP])), "08ce96911ec6d2bd");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn all_ranks_of_a_step_make_one_tree() {
        let parts = parts();
        let told: Vec<FinishedSpan> = [0, 1].iter().flat_map(|rank| group(*rank).spans_of(&step(&parts))).collect();
        let by_id: BTreeMap<[u8; 8], &FinishedSpan> = told.iter().map(|span| (span.id, span)).collect();
        assert_eq!(by_id.len(), told.len(), "an identity was given twice");
        assert!(told.iter().all(|span| span.trace == told[0].trace));
        let roots: Vec<&str> = told.iter().filter(|span| span.parent.is_none()).map(|span| &*span.name).collect();
        assert_eq!(roots, ["step 12"]);
        let path = |span: &FinishedSpan| {
            let mut path = span.name.clone();
            let mut above = span.parent;
            while let Some(parent) = above.map(|id| by_id[&id]) {
                assert!(parent.begin <= span.begin && span.end <= parent.end, "{} > {}", parent.name, span.name);
                path = format!("{} > {path}", parent.name);
                above = parent.parent;
            }
            path
        };
        let paths: Vec<String> = told.iter().map(path).collect();
        let of_rank = |rank: u32| {
            let within = ["data", "forward", "backward", "forward", "backward", "reduce", "bucket 0"];
            let below = ["backward > bucket 0", "forward > vit", "backward > vit", "backward > vit"];
            let parts = within.iter().chain(&below).map(move |part| format!("step 12 > rank {rank} > {part}"));
            [format!("step 12 > rank {rank}")].into_iter().chain(parts).collect::<Vec<_>>()
        };
        assert_eq!(paths, [vec!["step 12".to_owned()], of_rank(0), of_rank(1)].concat());
    }

    #[test]
    fn spans_carry_times_of_the_wall_and_what_is_known() {
        let parts = parts();
        let told = group(1).spans_of(&step(&parts));
        let rank = &told[0];
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        assert_eq!([rank.begin, rank.end], [wall, wall + Duration::from_micros(100)]);
        let attributes: Vec<(&str, String)> =
            rank.attributes.iter().map(|pair| (pair.key.as_str(), pair.value.to_string())).collect();
        let expected = [
            ("phalanx.run", "digits"),
            ("phalanx.generation", "3"),
            ("phalanx.step", "12"),
            ("phalanx.world_size", "2"),
            ("phalanx.rank", "1"),
            ("phalanx.worker", "0000000000000009"),
            ("phalanx.samples", "32"),
            ("phalanx.matmul_flops", "1500"),
        ];
        assert_eq!(attributes, expected.map(|(key, value)| (key, value.to_owned())));
    }

    #[test]
    fn a_step_of_too_many_parts_loses_parts_of_the_model_and_says_so() {
        let mut many = parts();
        many.extend((0..2 * SPANS_MAX).map(|_| part(Kind::Layer, "vit", "forward", 112, 113, 1)));
        let told = group(0).spans_of(&step(&many));
        assert_eq!(told.len(), SPANS_MAX);
        let left_out = told[1].attributes.iter().find(|pair| pair.key.as_str() == "phalanx.parts_left_out");
        let parts_told = SPANS_MAX - 2;
        // The operator is told of nowhere.
        assert_eq!(left_out.map(|pair| pair.value.to_string()), Some((many.len() - 1 - parts_told).to_string()));
        assert!(told.iter().any(|span| span.name == "reduce"));
    }
}
