//! A new volume as it is asked for, checked before anybody is asked.

use super::capability;
use super::claims::ClaimRef;
use super::lookup::token;
use super::parameters::{Words, own_words};
use super::status::{Refusal, required};
use super::v1::volume_content_source::Type;
use super::v1::{CapacityRange, CreateVolumeRequest, VolumeContentSource};
use super::volume;
use crate::model::Token;

/// The specification's bound for a volume's name.
const NAME_BYTES_MAX: usize = 128;

/// A checked creation.
pub(super) struct Creation {
    pub(super) name: String,
    pub(super) volume_id: String,
    /// The class's, then with the claim's and the source's.
    pub(super) words: Words,
    /// Whose annotations belong to the words.
    pub(super) claim: Option<ClaimRef>,
    /// The volume that is cloned.
    pub(super) source: Option<String>,
    pub(super) range: CapacityRange,
    pub(super) token: Option<Token>,
}

impl Creation {
    pub(super) fn of(request: CreateVolumeRequest) -> Result<Creation, Refusal> {
        check_name(&request.name)?;
        capability::check_all(&request.volume_capabilities)?;
        if !request.mutable_parameters.is_empty() {
            return Err(refused("mutable_parameters", "a volume cannot be modified"));
        }
        Ok(Creation {
            volume_id: volume::volume_id(&request.name),
            name: request.name,
            claim: ClaimRef::of(&request.parameters),
            words: own_words(request.parameters),
            source: request.volume_content_source.map(source).transpose()?,
            range: check_range(request.capacity_range.unwrap_or_default())?,
            token: token(&request.secrets),
        })
    }

    /// At least what was asked for, for the provisioner deletes a smaller volume again.
    pub(super) fn capacity(&self, bytes: u64) -> Result<i64, Refusal> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let capacity = bytes.max(self.range.required_bytes);
        match self.fits(capacity) {
            true => Ok(capacity),
            false => Err(Refusal::TooLarge {
                volume: self.name.clone(),
                bytes: capacity,
                limit: self.range.limit_bytes,
            }),
        }
    }

    /// A limit of 0 is none.
    pub(super) fn fits(&self, capacity: i64) -> bool {
        let range = &self.range;
        capacity >= range.required_bytes
            && (range.limit_bytes == 0 || capacity <= range.limit_bytes)
    }
}

fn source(source: VolumeContentSource) -> Result<String, Refusal> {
    let Some(Type::Volume(source)) = source.r#type else {
        let cause = "snapshots are not supported: clone a volume, or name the model in a new claim";
        return Err(refused("volume_content_source", cause));
    };
    required("volume_content_source.volume.volume_id", &source.volume_id)?;
    Ok(source.volume_id)
}

fn refused(field: &'static str, cause: impl Into<String>) -> Refusal {
    Refusal::Field {
        field,
        cause: cause.into(),
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    required("name", name)?;
    let cause = match name {
        _ if name.len() > NAME_BYTES_MAX => "is longer than 128 bytes",
        _ if name.chars().any(char::is_control) => "holds a control character",
        _ => return Ok(()),
    };
    Err(Refusal::Field {
        field: "name",
        cause: cause.into(),
    })
}

fn check_range(range: CapacityRange) -> Result<CapacityRange, Refusal> {
    match range.required_bytes < 0 || range.limit_bytes < 0 {
        true => Err(Refusal::Field {
            field: "capacity_range",
            cause: "is negative".into(),
        }),
        false => Ok(range),
    }
}
