use domain::record::Record;
use domain::series::Figure;

/// The figures of a record under the names that they have everywhere: in charts, exports and sinks. `samples` is what a
/// step read; while that is unknown, the figure that follows from it is left out.
pub fn points(record: &Record, samples: Option<u64>) -> Vec<(&'static str, f64)> {
    match record {
        Record::Step(step) => {
            let is_given = |figure: &Figure| match figure {
                Figure::ElapsedSeconds => false,
                Figure::SamplesPerSecond => samples.is_some(),
                _ => true,
            };
            let figures = Figure::ALL.into_iter().filter(is_given);
            figures.map(|figure| (figure.name(), figure.of(step, samples, 0))).collect()
        }
        Record::Eval(eval) => vec![("eval_loss", eval.loss), ("eval_accuracy", eval.accuracy)],
    }
}

/// The beginning of a text, of at most so many bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
