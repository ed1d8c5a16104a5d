//! A TPM: what one has sealed no other opens.

use super::state::failed;
use super::{MemoryHost, Running};
use crate::{HostError, Seals};

impl Running {
    fn tpm<T>(&self, call: &str, name: &str, body: impl FnOnce(u32) -> Result<T, HostError>) -> Result<T, HostError> {
        self.look(call, name, |state| match state.tpm {
            Some(number) => body(number),
            None => Err(failed(call, "No TPM2 device found")),
        })
    }
}

impl Seals for Running {
    fn missing(&self) -> Result<Option<String>, HostError> {
        self.look("seals.missing", "", |state| {
            Ok(state.tpm.is_none().then(|| "it has none".to_owned()))
        })
    }

    fn seal(&self, name: &str, secret: &str) -> Result<String, HostError> {
        self.tpm("seals.seal", name, |number| {
            // Nothing of the secret is to be read in it.
            let hidden: String = secret.bytes().map(|byte| format!("{:02x}", !byte)).collect();
            Ok(format!("{number}/{name}/{hidden}."))
        })
    }

    fn unseal(&self, name: &str, sealed: &str) -> Result<String, HostError> {
        self.tpm("seals.unseal", name, |number| {
            let hidden = sealed.strip_prefix(&format!("{number}/{name}/"));
            let hidden = hidden.and_then(|rest| rest.strip_suffix('.'));
            let hidden = hidden.ok_or_else(|| failed("seals.unseal", "decryption failed"))?;
            let pairs = hidden.as_bytes().chunks(2).map(str::from_utf8);
            let bytes = pairs.map(|pair| {
                pair.ok()
                    .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                    .map(|byte| !byte)
            });
            let text = bytes
                .collect::<Option<Vec<u8>>>()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            text.ok_or_else(|| failed("seals.unseal", "not what was sealed"))
        })
    }
}

impl MemoryHost {
    /// The machine has the TPM of this number from now on, or none.
    pub fn fit_tpm(&self, number: Option<u32>) {
        self.lock().tpm = number;
    }
}
