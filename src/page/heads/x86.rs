//! Counting heads with AVX2 and AVX-512, and detecting which of them the processor has.
//!
//! Floor: page. Part of `heads`. The functions use vector instructions that not every processor
//! has; [`widest`] detects them once.
//!
//! Failure: none.
#![allow(unsafe_code, reason = "vector instructions that not every processor has")]

use std::arch::x86_64::*;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Search, Vectors, BRANCH_PREFIX_MAX, NARROW_BYTES, WIDE_BYTES, WORDS};

/// Proof that the processor has AVX-512 F, BW and VL, AVX2, BMI and POPCNT: only [`with_avx512`]
/// makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// Proof that the processor has AVX2 and POPCNT: only [`with_avx2`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Not detected yet.
const UNKNOWN: u8 = 0;
const PORTABLE: u8 = 1;
pub(super) const AVX2: u8 = 2;
pub(super) const AVX512: u8 = 3;
static WIDEST: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The widest vectors of this processor: one of the constants above.
#[inline(always)]
pub(super) fn widest() -> u8 {
    let widest = WIDEST.load(Ordering::Relaxed);
    if widest == AVX512 {
        // Compared first, so that this case costs one comparison.
        return AVX512;
    }
    if widest == UNKNOWN {
        return detect();
    }
    widest
}

#[cold]
#[inline(never)]
fn detect() -> u8 {
    let widest = if !is_x86_feature_detected!("popcnt") || !is_x86_feature_detected!("avx2") {
        PORTABLE
    } else if !is_x86_feature_detected!("avx512f")
        || !is_x86_feature_detected!("avx512bw")
        || !is_x86_feature_detected!("avx512vl")
        || !is_x86_feature_detected!("bmi1")
        || !is_x86_feature_detected!("bmi2")
    {
        AVX2
    } else {
        AVX512
    };
    WIDEST.store(widest, Ordering::Relaxed);
    widest
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,popcnt")]
pub(super) fn with_avx512<S: Search>(search: S) -> S::Answer {
    search.with(Avx512(()))
}

#[target_feature(enable = "avx2,popcnt")]
pub(super) fn with_avx2<S: Search>(search: S) -> S::Answer {
    search.with(Avx2(()))
}

/// # Safety
/// The processor has AVX-512 F and POPCNT, and 64 bytes can be read.
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
unsafe fn below_512(heads: *const u8, probe: u32) -> u32 {
    // SAFETY: as the caller promises, for the length of the call; it only reads, and needs no
    // alignment.
    let lanes = unsafe { _mm512_loadu_si512(heads.cast()) };
    u32::from(_mm512_cmplt_epu32_mask(lanes, _mm512_set1_epi32(probe.cast_signed())))
}

/// Whether the bytes at the set bits of `mask` are equal.
///
/// # Safety
/// The processor has AVX-512 BW and VL, and the bytes at the set bits of the mask can be read on
/// both sides; no others are read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn equal_first(a: *const u8, b: *const u8, mask: u32) -> bool {
    // SAFETY: as the caller promises; the loads need no alignment.
    let (a, b) = unsafe { (_mm256_maskz_loadu_epi8(mask, a.cast()), _mm256_maskz_loadu_epi8(mask, b.cast())) };
    _mm256_cmpneq_epi8_mask(a, b) == 0
}

/// A mask with a bit for each of eight heads that is below the probe.
///
/// # Safety
/// The processor has AVX2, and 32 bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn below_256(heads: *const u8, probe: u32) -> u32 {
    // SAFETY: as the caller promises, for the length of the call; it only reads, and needs no
    // alignment.
    let lanes = unsafe { _mm256_loadu_si256(heads.cast()) };
    // AVX2 compares only signed numbers: flip the top bit of both sides.
    let half = _mm256_set1_epi32(i32::MIN);
    let probes = _mm256_xor_si256(_mm256_set1_epi32(probe.cast_signed()), half);
    let below = _mm256_cmpgt_epi32(probes, _mm256_xor_si256(lanes, half));
    _mm256_movemask_ps(_mm256_castsi256_ps(below)).cast_unsigned()
}

/// A mask with a bit for each of eight words that is below the probe.
///
/// # Safety
/// The processor has AVX-512 F, and 64 bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn words_below_512(words: *const u64, probe: u64) -> u32 {
    // SAFETY: as the caller promises, for the length of the call; it only reads, and needs no
    // alignment.
    let lanes = unsafe { _mm512_loadu_si512(words.cast()) };
    u32::from(_mm512_cmplt_epu64_mask(lanes, _mm512_set1_epi64(probe.cast_signed())))
}

/// A mask with a bit for each of four words that is below the probe.
///
/// # Safety
/// The processor has AVX2, and 32 bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn words_below_256(words: *const u64, probe: u64) -> u32 {
    // SAFETY: as the caller promises, for the length of the call; it only reads, and needs no
    // alignment.
    let lanes = unsafe { _mm256_loadu_si256(words.cast()) };
    let half = _mm256_set1_epi64x(i64::MIN);
    let probes = _mm256_xor_si256(_mm256_set1_epi64x(probe.cast_signed()), half);
    let below = _mm256_cmpgt_epi64(probes, _mm256_xor_si256(lanes, half));
    _mm256_movemask_pd(_mm256_castsi256_pd(below)).cast_unsigned()
}

/// Keeps the lowest `count` bits, at most 32.
#[inline(always)]
fn first(bits: u32, count: usize) -> u32 {
    bits & ((1u64 << count.min(32)) - 1) as u32
}

impl Vectors for Avx512 {
    #[inline(always)]
    fn begins_with(self, key: &[u8], prefix: &[u8; BRANCH_PREFIX_MAX], bytes: usize) -> bool {
        if bytes > key.len() || bytes > BRANCH_PREFIX_MAX {
            return false;
        }
        // SAFETY: `self` proves that the processor has AVX-512. Bounds: the mask has `bytes` bits,
        // and the check above found that key and prefix have as many bytes. Lifetime: both are
        // borrowed. Aliasing: they are only read.
        unsafe { equal_first(key.as_ptr(), prefix.as_ptr(), (1 << bytes) - 1) }
    }

    #[inline(always)]
    fn below_16(self, heads: &[u8; NARROW_BYTES], probe: u32) -> usize {
        // SAFETY: `self` proves that the processor has it; 64 bytes.
        unsafe { below_512(heads.as_ptr(), probe) }.count_ones() as usize
    }

    #[inline(always)]
    fn below_32(self, heads: &[u8; WIDE_BYTES], count: usize, probe: u32) -> usize {
        // SAFETY: `self` proves that the processor has it; the first 64 of 128 bytes.
        let low = unsafe { below_512(heads.as_ptr(), probe) };
        // SAFETY: the last 64 of 128 bytes.
        let high = unsafe { below_512(heads.as_ptr().add(64), probe) };
        first(low | high << 16, count).count_ones() as usize
    }

    #[inline(always)]
    fn below_16_words(self, words: &[u64; WORDS], probe: u64) -> usize {
        // SAFETY: `self` proves that the processor has it; the first 8 of 16 words.
        let low = unsafe { words_below_512(words.as_ptr(), probe) };
        // SAFETY: the last 8 of 16 words.
        let high = unsafe { words_below_512(words.as_ptr().add(8), probe) };
        (low | high << 8).count_ones() as usize
    }
}

impl Vectors for Avx2 {
    #[inline(always)]
    fn below_16(self, heads: &[u8; NARROW_BYTES], probe: u32) -> usize {
        // SAFETY: `self` proves that the processor has it; the first 32 of 64 bytes.
        let low = unsafe { below_256(heads.as_ptr(), probe) };
        // SAFETY: the last 32 of 64 bytes.
        let high = unsafe { below_256(heads.as_ptr().add(32), probe) };
        (low | high << 8).count_ones() as usize
    }

    #[inline(always)]
    fn below_32(self, heads: &[u8; WIDE_BYTES], count: usize, probe: u32) -> usize {
        let mut bits = 0;
        for part in 0..4 {
            // SAFETY: `self` proves that the processor has it; 32 of 128 bytes each.
            bits |= unsafe { below_256(heads.as_ptr().add(32 * part), probe) } << (8 * part);
        }
        first(bits, count).count_ones() as usize
    }

    #[inline(always)]
    fn below_16_words(self, words: &[u64; WORDS], probe: u64) -> usize {
        let mut bits = 0;
        for part in 0..4 {
            // SAFETY: `self` proves that the processor has it; 4 of 16 words each.
            bits |= unsafe { words_below_256(words.as_ptr().add(4 * part), probe) } << (4 * part);
        }
        bits.count_ones() as usize
    }
}
