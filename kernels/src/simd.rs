//! The vector unit of this machine, found at run time.

use std::sync::OnceLock;

use pulp::Arch;

/// The environment variable that asks for less than the machine has: `scalar`, or `avx2` on one with AVX-512. Results do not
/// depend on it; that they do not can be seen with it. With `avx512bf16`, products of `bf16` values are made by the
/// instruction for them also where it is slow, which changes their last bits.
pub const VARIABLE: &str = "PHALANX_SIMD";

/// The vector instructions that are used in this process.
pub(crate) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| match std::env::var(VARIABLE).as_deref() {
        Ok("scalar") => Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        Ok("avx2") => pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3),
        _ => Arch::new(),
    })
}

/// Whether products of `bf16` values are to be made by AVX512-BF16, if the machine has it. AMD's processors make twice as many
/// products with it as in `f32`; Intel's, which have AMX for this, make half as many (1.35 against 5.5 instructions in a
/// nanosecond on Sapphire Rapids).
pub(crate) fn wants_bf16_instruction() -> bool {
    #[cfg(target_arch = "x86_64")]
    return matches!(arch(), Arch::V4(_)) && (std::env::var(VARIABLE).as_deref() == Ok("avx512bf16") || is_amd());
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Whether AMD made the processor.
#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

/// What [`arch`] found, as people call it.
pub fn name() -> &'static str {
    match arch() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => "NEON",
        _ => "scalar",
    }
}

/// Runs `work` compiled for the vector unit of this machine: loops inside of it become vector code, if all that they call is
/// inlined: mark the closure itself `#[inline(always)]`, too. The bits are those of scalar code: the compiler neither reorders
/// nor fuses what is written.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    struct Work<F>(F);
    impl<R, F: FnOnce() -> R> pulp::WithSimd for Work<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _simd: S) -> R {
            (self.0)()
        }
    }
    arch().dispatch(Work(work))
}
