//! A convolution looks at images through a grid: every place of the grid sees one value of each plane for each tap of the
//! kernel. Here these values are laid out as a product reads them, a few places and planes at a time; the whole matrix of
//! them ("im2col") never exists.

use std::ops::Range;

/// Values that copying may read or write behind the last one: the widest panel, twice.
pub(super) const SLACK: usize = 64;

/// Images, and the places at which they are looked at. Tap `[dy, dx]` of place `[y, x]` sees the value at
/// `[y * stride[0] + dy, x * stride[1] + dx]`, or 0 if that lies outside of the plane.
#[derive(Clone, Copy)]
pub(super) struct Grid<'a> {
    /// `[samples, planes, height, width]`.
    pub(super) values: &'a [f32],
    pub(super) samples: usize,
    pub(super) planes: usize,
    /// The first plane that is looked at.
    pub(super) first_plane: usize,
    /// Height and width of a plane.
    pub(super) plane: [usize; 2],
    /// Rows and columns of places.
    pub(super) size: [usize; 2],
    pub(super) stride: [usize; 2],
}

impl Grid<'_> {
    pub(super) fn places(&self) -> usize {
        self.size[0] * self.size[1]
    }
}

/// Places that are worked on at a time: a stretch of the places of one sample, or all those of several samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) sample: usize,
    pub(super) samples: usize,
    pub(super) first: usize,
    pub(super) places: usize,
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.samples * self.places
    }
}

/// Cuts the places of all samples into chunks of about `limit`: even ones, in multiples of `unit`, if a sample is cut.
pub(super) fn chunks(samples: usize, places: usize, limit: usize, unit: usize) -> Vec<Chunk> {
    if places > limit {
        let size = places.div_ceil(places.div_ceil(limit)).next_multiple_of(unit);
        let of_sample = |sample| {
            (0..places).step_by(size).map(move |first| Chunk {
                sample,
                samples: 1,
                first,
                places: size.min(places - first),
            })
        };
        return (0..samples).flat_map(of_sample).collect();
    }
    let together = (limit / places.max(1)).max(1);
    let of = |sample| Chunk { sample, samples: together.min(samples - sample), first: 0, places };
    (0..samples).step_by(together).map(of).collect()
}

/// Where the taps of the places of a chunk find their values: in a copy with a margin of zeros, or in the images
/// themselves, if no tap looks outside.
pub(super) struct Layout {
    /// Where each place of the chunk looks, less the tap.
    pub(super) lanes: Vec<usize>,
    /// What each tap adds to that.
    pub(super) taps: Vec<usize>,
    /// From a plane to the next one.
    pub(super) plane: usize,
    copy: Option<Copy>,
}

/// The part of the planes that is copied.
struct Copy {
    rows: usize,
    columns: usize,
    /// The first row and column, in the plane; may lie outside.
    first: [isize; 2],
    /// Whether any tap looks at a row.
    is_seen: Vec<bool>,
}

impl Layout {
    pub(super) fn new(grid: &Grid<'_>, chunk: &Chunk, taps: &[[isize; 2]]) -> Self {
        let [height, width] = grid.plane;
        let [sy, sx] = grid.stride;
        let across = grid.size[1];
        let extent = |axis: usize| {
            let of = |tap: &[isize; 2]| tap[axis];
            (taps.iter().map(of).min().unwrap_or(0), taps.iter().map(of).max().unwrap_or(0))
        };
        let ((top, bottom), (left, right)) = (extent(0), extent(1));
        let fits = |first: isize, last: isize, size: usize, stride: usize, len: usize| {
            first >= 0 && (size - 1) * stride + (last as usize) < len
        };
        let (sample, row, copy) = if fits(top, bottom, grid.size[0], sy, height) && fits(left, right, across, sx, width)
        {
            (grid.planes * height * width, width, None)
        } else {
            let first_row = chunk.first / across;
            let rows = (chunk.first + chunk.places - 1) / across - first_row;
            let rows = rows * sy + (bottom - top) as usize + 1;
            let columns = (across - 1) * sx + (right - left) as usize + 1;
            let first = [(first_row * sy) as isize + top, left];
            let sees = |row: usize| {
                taps.iter().any(|tap| {
                    row as isize >= tap[0] - top && ((row as isize - tap[0] + top) as usize).is_multiple_of(sy)
                })
            };
            (rows * columns, columns, Some(Copy { rows, columns, first, is_seen: (0..rows).map(sees).collect() }))
        };
        let (origin, plane, base) = match &copy {
            // Planes of all samples of the chunk lie next to each other, so that the number of planes plays no part.
            Some(copy) => ([top, left], chunk.samples * copy.rows * copy.columns, chunk.first / across),
            None => ([0, 0], height * width, 0),
        };
        let begin = if copy.is_some() { 0 } else { chunk.sample * sample + grid.first_plane * plane };
        let lane =
            |n: usize, place: usize| begin + n * sample + (place / across - base) * sy * row + place % across * sx;
        let places = chunk.first..chunk.first + chunk.places;
        let lanes = (0..chunk.samples).flat_map(|n| places.clone().map(move |place| lane(n, place))).collect();
        let tap = |[y, x]: &[isize; 2]| (y - origin[0]) as usize * row + (x - origin[1]) as usize;
        Self { lanes, taps: taps.iter().map(tap).collect(), plane, copy }
    }

    /// The values that the taps see of `planes`, whose first one is then the first one of the view.
    #[inline(always)]
    pub(super) fn view<'a>(
        &self,
        grid: &Grid<'a>,
        chunk: &Chunk,
        planes: Range<usize>,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let Some(copy) = &self.copy else { return &grid.values[planes.start * self.plane..] };
        let [height, width] = grid.plane;
        let len = planes.len() * self.plane;
        if buffer.len() < len + SLACK {
            buffer.resize(len + SLACK, 0.0);
        }
        let [first_row, first_column] = copy.first;
        // Columns of the copy before, and up to the end of those that exist.
        let before = (-first_column).clamp(0, copy.columns as isize) as usize;
        let until = (width as isize - first_column).clamp(before as isize, copy.columns as isize) as usize;
        let source_column = first_column.max(0) as usize;
        let mut rows = buffer[..len].chunks_exact_mut(copy.columns);
        for plane in planes {
            for n in 0..chunk.samples {
                let source = ((chunk.sample + n) * grid.planes + grid.first_plane + plane) * height * width;
                for (r, is_seen) in copy.is_seen.iter().enumerate() {
                    let out = rows.next().expect("a row of the buffer for each row of the copy");
                    let row = first_row + r as isize;
                    if !is_seen {
                        continue;
                    }
                    if row < 0 || row as usize >= height || before == until {
                        out.fill(0.0);
                        continue;
                    }
                    let from = &grid.values[source + row as usize * width + source_column..][..until - before];
                    out[..before].fill(0.0);
                    out[before..until].copy_from_slice(from);
                    out[until..].fill(0.0);
                }
            }
        }
        &buffer[..len + SLACK]
    }

    /// Calls `work` with the number of each of the `terms` from `first` on, and where it begins in a view that begins with
    /// plane `first / taps`.
    #[inline(always)]
    fn for_each_term(&self, first: usize, terms: usize, mut work: impl FnMut(usize, usize)) {
        let (mut plane, mut tap) = (0, first % self.taps.len());
        for k in 0..terms {
            work(k, plane + self.taps[tap]);
            tap += 1;
            if tap == self.taps.len() {
                tap = 0;
                plane += self.plane;
            }
        }
    }

    /// Lays out `terms` from `first` on, term by term, in panels of `W` places; missing places hold anything.
    /// `out` has room for [`SLACK`] more.
    #[inline(always)]
    pub(super) fn panels<const W: usize>(&self, view: &[f32], first: usize, terms: usize, out: &mut [f32]) {
        let planes = (first % self.taps.len() + terms).div_ceil(self.taps.len());
        let furthest = (planes - 1) * self.plane + self.taps.iter().max().expect("a tap");
        for (i, lanes) in self.lanes.chunks(W).enumerate() {
            let out = &mut out[i * W * terms..];
            let step = if lanes.len() > 1 { lanes[1] - lanes[0] } else { 1 };
            let mut all = [0; W];
            for (lane, place) in all.iter_mut().enumerate() {
                let beyond = || lanes[lanes.len() - 1] + (lane + 1 - lanes.len()) * step;
                *place = lanes.get(lane).copied().unwrap_or_else(beyond);
            }
            let (starts, runs) = runs(&all);
            let reach = furthest + all.iter().max().expect("a place");
            if runs == 1 && reach < view.len() {
                self.for_each_term(first, terms, |k, at| {
                    out[k * W..][..W].copy_from_slice(&view[at + all[0]..][..W]);
                });
            } else if runs <= RUNS_MAX && reach + W <= view.len() {
                // Each run is copied as if it went on; what follows it overwrites that.
                self.for_each_term(first, terms, |k, at| {
                    for &lane in &starts[..runs] {
                        out[k * W + lane..][..W].copy_from_slice(&view[at + all[lane]..][..W]);
                    }
                });
            } else if all.iter().enumerate().all(|(lane, place)| *place == all[0] + 2 * lane) && reach + 1 < view.len()
            {
                self.for_each_term(first, terms, |k, at| {
                    let from = &view[at + all[0]..][..2 * W];
                    let out = &mut out[k * W..][..W];
                    for lane in 0..W {
                        out[lane] = from[2 * lane];
                    }
                });
            } else {
                self.for_each_term(first, terms, |k, at| {
                    let out = &mut out[k * W..][..W];
                    for (out, place) in out.iter_mut().zip(&all) {
                        // Only places that do not exist look beyond the end.
                        *out = view[(at + place).min(view.len() - 1)];
                    }
                });
            }
        }
    }

    /// Lays out `terms` from `first` on as rows of all places of the chunk. `out` has room for [`SLACK`] more.
    #[inline(always)]
    pub(super) fn rows(&self, grid: &Grid<'_>, view: &[f32], first: usize, terms: usize, out: &mut [f32]) {
        /// Values copied at a time.
        const STEP: usize = 8;
        let (len, stride) = (self.lanes.len(), grid.stride[1]);
        // Where stretches of places begin that are `stride` apart; the last entry is the end.
        let mut starts: Vec<usize> =
            (0..len).filter(|i| *i == 0 || self.lanes[*i] != self.lanes[i - 1] + stride).collect();
        starts.push(len);
        self.for_each_term(first, terms, |k, at| {
            for stretch in starts.windows(2) {
                let (begin, count) = (k * len + stretch[0], stretch[1] - stretch[0]);
                let from = &view[at + self.lanes[stretch[0]]..];
                let steps = count.div_ceil(STEP);
                if stride <= 2 && steps * STEP * stride <= from.len() {
                    // What goes beyond the stretch is overwritten by the next one.
                    let out = &mut out[begin..][..steps * STEP];
                    let groups = out.as_chunks_mut::<STEP>().0.iter_mut();
                    if stride == 1 {
                        groups.zip(from.as_chunks::<STEP>().0).for_each(|(out, from)| *out = *from);
                    } else {
                        for (out, from) in groups.zip(from.as_chunks::<{ 2 * STEP }>().0) {
                            *out = std::array::from_fn(|i| from[2 * i]);
                        }
                    }
                } else {
                    let out = &mut out[begin..][..count];
                    out.iter_mut().enumerate().for_each(|(i, out)| *out = from[i * stride]);
                }
            }
        });
    }
}

/// More runs of neighbours than this are copied value by value.
const RUNS_MAX: usize = 6;

/// Where runs of neighbours begin, and how many there are.
#[inline(always)]
fn runs<const W: usize>(places: &[usize; W]) -> ([usize; W], usize) {
    let (mut starts, mut count) = ([0; W], 1);
    for lane in 1..W {
        if places[lane] != places[lane - 1] + 1 {
            starts[count] = lane;
            count += 1;
        }
    }
    (starts, count)
}
