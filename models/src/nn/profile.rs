use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long the operators of a pass took.
#[derive(Debug)]
pub struct Profile {
    began: Instant,
    /// A lock, since a pass runs on a thread of the pool while its owner keeps the profile; nobody else waits for it.
    spans: Mutex<Vec<Span>>,
}

/// One run of an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// On which way.
    pub phase: Phase,
    /// The part of the model, such as `vit.encoder.layer.3`.
    pub scope: String,
    /// The operator.
    pub name: &'static str,
    /// When it began, counted from the beginning of the profile.
    pub begin: Duration,
    /// How long it took.
    pub duration: Duration,
    /// Floating-point operations of its matrix products.
    pub operations: u64,
}

/// The way through a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the inputs to the loss.
    Forward,
    /// Back again.
    Backward,
}

impl Profile {
    /// A profile that begins now.
    #[expect(clippy::new_without_default, reason = "when it begins matters")]
    pub fn new() -> Self {
        Self { began: Instant::now(), spans: Mutex::default() }
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Takes what was noted so far, in the order in which it ended.
    pub fn take(&self) -> Vec<Span> {
        std::mem::take(&mut self.lock())
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn note(&self, phase: Phase, scope: &str, name: &'static str, begin: Duration, operations: u64) {
        let duration = self.now().saturating_sub(begin);
        self.lock().push(Span { phase, scope: scope.to_owned(), name, begin, duration, operations });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Span>> {
        self.spans.lock().expect("nobody panics while holding the spans")
    }
}
