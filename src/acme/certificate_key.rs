//! The revocation of a certificate by its own key, where the account that ordered it is lost (RFC 8555 §7.6).
//!
//! The protocol library signs as an account alone, so the one request is made here: a JWS whose header holds the public key
//! of the certificate (RFC 8555 §6.2, RFC 7515).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Collected, Full};
use instant_acme::{BodyWrapper, Problem};
use serde_json::{Value, json};

use super::error::OrderError;
use super::order::{Connection, RevocationReason};
use crate::config::AcmeSettings;

/// The attempts with another nonce; an authority may refuse any.
const TRIES: usize = 4;
/// The beginning of a private key in PEM (PKCS#8).
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----";
/// The program, as it presents itself to the authority (RFC 8555 §6.1).
const PROGRAM: &str = concat!("pulsegate/", env!("CARGO_PKG_VERSION"));

/// Revokes the certificate `leaf`, in DER, by its key in the PEM text `pem`.
pub(super) async fn revoke(
    settings: &AcmeSettings,
    leaf: &[u8],
    pem: &[u8],
    reason: RevocationReason,
) -> Result<(), OrderError> {
    let key = key_of(pem)?;
    let connection = Connection::open(settings).await?;
    let directory: Value = body(connection.request(Method::GET, &settings.directory, Vec::new()).await?).await?;
    let url = |name: &str| {
        let url = directory[name].as_str().map(str::to_owned);
        url.ok_or_else(|| OrderError::Response(format!("the directory has no {name}")))
    };
    let (new_nonce, revoke) = (url("newNonce")?, url("revokeCert")?);
    // RFC 5280 §5.3.1.
    let reason = match reason {
        RevocationReason::KeyCompromise => 1,
        RevocationReason::Superseded => 4,
    };
    let payload = json!({ "certificate": BASE64URL_NOPAD.encode(leaf), "reason": reason }).to_string();
    let mut refused = OrderError::Internal;
    for _ in 0..TRIES {
        let response = connection.request(Method::HEAD, &new_nonce, Vec::new()).await?;
        let nonce = response.headers().get("Replay-Nonce").and_then(|nonce| nonce.to_str().ok());
        let nonce = nonce.ok_or_else(|| OrderError::Response("there is no nonce".to_owned()))?;
        let signed = jws(&key, nonce, &revoke, &payload)?;
        let response = connection.request(Method::POST, &revoke, signed.into_bytes()).await?;
        if response.status().is_success() {
            return Ok(());
        }
        let problem: Problem = body(response).await?;
        refused = OrderError::of_problem(&problem, connection.last.details());
        if !refused.is_bad_nonce() {
            break;
        }
    }
    Err(refused)
}

impl Connection {
    async fn request(&self, method: Method, url: &str, body: Vec<u8>) -> Result<Response<Full<Bytes>>, OrderError> {
        let request = Request::builder().method(method).uri(url).header(USER_AGENT, PROGRAM);
        let request = request.header(CONTENT_TYPE, "application/jose+json").body(BodyWrapper::from(body));
        let request = request.map_err(|_| OrderError::Response(format!("{url:?} is no URL")))?;
        self.http.send(request).await.map_err(|error| OrderError::of_request(error, &self.last.details()))
    }
}

/// Returns the JSON of a response.
async fn body<T: serde::de::DeserializeOwned>(response: Response<Full<Bytes>>) -> Result<T, OrderError> {
    let bytes = response.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    serde_json::from_slice(&bytes).map_err(|error| OrderError::Response(error.to_string()))
}

/// Returns the key in `pem`, which orders make: P-256.
fn key_of(pem: &[u8]) -> Result<EcdsaKeyPair, OrderError> {
    let text = String::from_utf8_lossy(pem);
    let text = &text[text.find(PRIVATE_KEY).unwrap_or(text.len())..];
    let key = rcgen::KeyPair::from_pem(text).ok();
    let key = key.and_then(|key| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der()).ok());
    key.ok_or_else(|| OrderError::NoAccount("the certificate's own key is not one that pulsegate made".to_owned()))
}

/// Returns `payload` as it is signed with `key` for `url`.
fn jws(key: &EcdsaKeyPair, nonce: &str, url: &str, payload: &str) -> Result<String, OrderError> {
    // An uncompressed point: 4, x, y (SEC 1 §2.3.3).
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let [x, y] = [x, y].map(|coordinate| BASE64URL_NOPAD.encode(coordinate));
    let jwk = json!({ "crv": "P-256", "kty": "EC", "x": x, "y": y });
    let header = json!({ "alg": "ES256", "jwk": jwk, "nonce": nonce, "url": url }).to_string();
    let [header, payload] = [&*header, payload].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
    let signature = key.sign(&SystemRandom::new(), format!("{header}.{payload}").as_bytes());
    let signature = signature.map_err(|_| OrderError::Internal)?;
    let signature = BASE64URL_NOPAD.encode(signature.as_ref());
    Ok(json!({ "protected": header, "payload": payload, "signature": signature }).to_string())
}
