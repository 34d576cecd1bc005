//! Keeps the pages that hold secrets out of swap, and a secret out of the environment. One of the two modules
//! with `unsafe`.
//!
//! `mlock(2)` does not nest, so pages are counted: a page is locked when its first secret appears and unlocked
//! when its last one is gone. Where the system refuses (RLIMIT_MEMLOCK), the secret is kept unlocked.

#![expect(unsafe_code, reason = "mlock takes a raw address; environ is changed in place")]

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock, PoisonError},
};

use zeroize::Zeroizing;

static PAGES: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());
static PAGE_BYTES: OnceLock<usize> = OnceLock::new();

/// Holds the pages of one secret locked until it is dropped.
pub(crate) struct PageLock {
    pages: std::ops::RangeInclusive<usize>,
}

impl PageLock {
    /// Locks the pages that hold these bytes, where the system allows.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let page = *PAGE_BYTES.get_or_init(rustix::param::page_size);
        let start = bytes.as_ptr().addr();
        let pages = start / page..=(start + bytes.len().saturating_sub(1)) / page;
        let mut counts = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
        for number in pages.clone() {
            let count = counts.entry(number).or_insert(0);
            *count += 1;
            if *count == 1 {
                let address = std::ptr::without_provenance_mut::<core::ffi::c_void>(number * page);
                // SAFETY: the page holds live bytes of ours; locking changes no memory.
                let _refused_is_fine = unsafe { rustix::mm::mlock(address, page) };
            }
        }
        Self { pages }
    }
}

impl Drop for PageLock {
    fn drop(&mut self) {
        let page = *PAGE_BYTES.get_or_init(rustix::param::page_size);
        let mut counts = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
        for number in self.pages.clone() {
            let Some(count) = counts.get_mut(&number) else { continue };
            *count -= 1;
            if *count == 0 {
                counts.remove(&number);
                let address = std::ptr::without_provenance_mut::<core::ffi::c_void>(number * page);
                // SAFETY: unlocking changes no memory; an address that is no longer mapped is an error, not a fault.
                let _refused_is_fine = unsafe { rustix::mm::munlock(address, page) };
            }
        }
    }
}

/// Takes a variable out of the process's environment and wipes its bytes there, so that neither children nor
/// `/proc/PID/environ` show it.
///
/// Must be called before any thread is started.
pub(crate) fn take_variable(name: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::env::var_os(name).map(|text| Zeroizing::new(text.into_encoded_bytes()))?;
    let prefix = format!("{name}=");
    // SAFETY: `environ` is a null-terminated list of NUL-terminated strings; no other thread runs yet, and the
    // bytes of a string may be overwritten in place up to its NUL.
    unsafe {
        unsafe extern "C" {
            static environ: *mut *mut core::ffi::c_char;
        }
        let mut entry = environ;
        // To the end: an environment may name a variable twice, and each copy shows the key.
        while !entry.is_null() && !(*entry).is_null() {
            let bytes = core::ffi::CStr::from_ptr(*entry).to_bytes();
            if bytes.starts_with(prefix.as_bytes()) {
                let (start, length) = ((*entry).add(prefix.len()), bytes.len() - prefix.len());
                core::ptr::write_bytes(start, b'x', length);
            }
            entry = entry.add(1);
        }
        std::env::remove_var(name);
    }
    Some(text)
}
