//! How the workers of a group add up their gradients and tell each other small things.
//!
//! Start with the trait [`Collective`], which holds the contract. [`local`] fulfils it for threads of one process,
//! [`ring`] for processes, over TCP between hosts and through shared memory on one, and [`faulty`] wraps either to
//! rehearse failures. [`Background`] runs one on a thread of its own, so that it works while the caller computes. One
//! conformance suite, `tests/conformance`, runs on all of them.
//!
//! A collective lives as long as one *generation* of a group and is never repaired: whatever goes wrong ends it for
//! every rank, and the group forms again with the next generation. What this crate does not do: it does not decide who
//! is a member, does not resend, and does not hide from strangers who speak its protocol; the network is trusted.

use std::ops::Range;

mod abort;
mod arguments;
mod background;
mod copy;
mod error;
pub mod faulty;
pub mod local;
mod reduction;
pub mod ring;

pub use abort::AbortHandle;
pub use background::Background;
pub use error::CollectiveError;

/// Most ranks of one group. A full mesh needs one socket per peer, and a process has 1,024 files by default.
pub const MAX_WORLD: u32 = 512;

/// Most bytes one rank may put into an [`all_gather`](Collective::all_gather): it is for facts and small tables, and
/// every rank holds what all of them sent.
pub const MAX_GATHER_BYTES: usize = 16 << 20;

/// Most subtree sums one rank may bring to a reduction. A contiguous range of at most 2^32 leaves consists of at most
/// two whole subtrees of each of the 32 levels.
pub const MAX_PARTS: usize = 64;

/// What a reduction gives back.
#[derive(Debug, Default, PartialEq)]
pub struct Reduced {
    /// The sum over all ranks. Where the implementation can, it lies in the buffer of the first part.
    pub sum: Vec<f32>,
    /// Buffers of the other parts, for the caller to use again; their content is unspecified.
    pub spare: Vec<Vec<f32>>,
}

/// What one rank holds of a group of `world` ranks that do the same operations in the same order.
///
/// **Every operation is a meeting.** It returns on a rank only after every rank has called it, and all ranks must call
/// the same operations in the same order, reductions with the same number of leaves and elements. A rank that does
/// something else is found out, and everybody gets [`CollectiveError::Protocol`] or loses a peer.
///
/// **Failure is final and shared.** After an error every further call fails at once with [`CollectiveError::Broken`]
/// (or `Aborted`). The failing rank closes its connections, so that each peer that still needs it fails with
/// [`CollectiveError::PeerLost`] in the operation it is in, or in its next one, and does the same in turn. Dropping a
/// collective has the same effect. The rank named in `PeerLost` is the first one *seen* lost, which may itself be a
/// survivor that gave up earlier; who died is for the coordinator to say.
///
/// **Success is not shared, but by one operation at most.** An operation may succeed on some ranks and fail on others when a
/// rank dies in it. A small reduction or gather is complete as soon as everybody's start is there, so that it succeeds on
/// the ranks that the dying one had told, right to the bit, and fails on the others; a small one may even succeed on a
/// rank that comes after all the others gave up. Nobody gets further: the next operation needs a start from every rank,
/// which none sends before it has completed this one. So an operation that succeeded anywhere means that all before it
/// succeeded everywhere, and the ranks differ by one operation at most. The members compare the steps they completed when
/// they form again, and believe nothing else.
///
/// **Abort.** [`AbortHandle::abort`] from any thread ends the running operation and every later one with
/// [`CollectiveError::Aborted`], within milliseconds, and the peers fail as above.
///
/// **Waiting.** An operation waits for slow peers without limit unless the implementation was given one; it does not
/// spin. Nothing is retried.
///
/// After an error the buffers that were brought to a reduction are gone.
pub trait Collective: Send {
    /// This rank, below [`world`](Self::world).
    fn rank(&self) -> u32;

    /// Number of ranks, at least 1.
    fn world(&self) -> u32;

    /// Adds up the leaves of the tree of [`domain::tree`] over all ranks and gives every rank the sum.
    ///
    /// `leaves` is the number of leaves of the whole tree, `parts` the sums of this rank's subtrees from left to right
    /// as `domain::tree::Accumulator::finish` returns them, each of `elements` elements. All ranks' parts together must
    /// tile the tree. Lengths of zero and lengths below the number of ranks are fine.
    ///
    /// The sum has the same bits on every rank, for every number of ranks and every implementation, as adding in tree
    /// order on one rank gives. Only which NaN a NaN is, is not fixed.
    ///
    /// # Errors
    /// See the trait. Parts that are no subtrees, overlap or leave a gap, or have the wrong length are `Invalid` on the
    /// rank that brought them and `Protocol` where only the ranks together are wrong.
    fn all_reduce(
        &mut self,
        leaves: u32,
        elements: usize,
        parts: Vec<(Range<u32>, Vec<f32>)>,
    ) -> Result<Reduced, CollectiveError>;

    /// Gives every rank what each rank brought, by rank. Lengths may differ, and be zero.
    ///
    /// # Errors
    /// See the trait; `Invalid` if `mine` is longer than [`MAX_GATHER_BYTES`].
    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// The handle that aborts this collective, for another thread to keep.
    fn abort_handle(&self) -> AbortHandle;
}

impl<C: Collective + ?Sized> Collective for Box<C> {
    fn rank(&self) -> u32 {
        (**self).rank()
    }

    fn world(&self) -> u32 {
        (**self).world()
    }

    fn all_reduce(
        &mut self,
        leaves: u32,
        elements: usize,
        parts: Vec<(Range<u32>, Vec<f32>)>,
    ) -> Result<Reduced, CollectiveError> {
        (**self).all_reduce(leaves, elements, parts)
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        (**self).all_gather(mine)
    }

    fn abort_handle(&self) -> AbortHandle {
        (**self).abort_handle()
    }
}
