//! Bringing a member of a forming group up to date from another one.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::ids::{Generation, TrialId};
use domain::record::{Position, Record};
use futures::Stream;
use proto::convert;
use proto::v1;
use proto::v1::peer_client::PeerClient;
use proto::v1::peer_server::{Peer, PeerServer};
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

use crate::records::batches;

/// Bytes in one chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// How long a source may take to offer its state: it must first notice that it is one.
const OFFER_LIMIT: Duration = Duration::from_secs(5);
/// How long one chunk may take.
const CHUNK_LIMIT: Duration = Duration::from_secs(5);

/// A whole state that others may fetch while their group forms.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) trial: TrialId,
    pub(crate) generation: Generation,
    pub(crate) position: Position,
    /// A safetensors file.
    pub(crate) state: Bytes,
    pub(crate) unrecorded: Vec<Record>,
}

/// What this worker offers at the moment.
#[derive(Clone)]
pub(crate) struct Offers(Arc<watch::Sender<Option<Arc<Offer>>>>);

impl Default for Offers {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Offers {
    /// Offers a state, in place of any other.
    pub(crate) fn publish(&self, offer: Offer) {
        self.0.send_replace(Some(Arc::new(offer)));
    }

    /// Offers nothing any more.
    pub(crate) fn withdraw(&self) {
        self.0.send_replace(None);
    }
}

/// Serves peers until `shutdown`.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    offers: Offers,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .max_concurrent_streams(64)
        .add_service(PeerServer::new(Service(offers)))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned())
        .await
}

struct Service(Offers);

#[tonic::async_trait]
impl Peer for Service {
    type FetchStateStream = Pin<Box<dyn Stream<Item = Result<v1::StateChunk, Status>> + Send>>;

    async fn fetch_state(
        &self,
        request: Request<v1::FetchStateRequest>,
    ) -> Result<Response<Self::FetchStateStream>, Status> {
        let v1::FetchStateRequest { trial, generation } = request.into_inner();
        let mut offers = self.0.0.subscribe();
        let wanted = |offer: &Option<Arc<Offer>>| {
            offer.as_ref().is_some_and(|o| o.trial.to_string() == trial && o.generation.0 == generation)
        };
        let found = tokio::time::timeout(OFFER_LIMIT, offers.wait_for(wanted)).await;
        let offer = found.ok().and_then(Result::ok).and_then(|offer| offer.clone());
        let offer =
            offer.ok_or_else(|| Status::not_found(format!("no state of {trial} at generation {generation}")))?;
        Ok(Response::new(Box::pin(futures::stream::iter(chunks(&offer).map(Ok)))))
    }
}

fn chunks(offer: &Offer) -> impl Iterator<Item = v1::StateChunk> + Send + use<> {
    let header = v1::StateHeader {
        position: Some(convert::position_to_wire(offer.position)),
        bytes: offer.state.len() as u64,
        blake3: blake3::hash(&offer.state).to_hex().to_string(),
        unrecorded: offer.unrecorded.len() as u64,
    };
    let first = v1::StateChunk { header: Some(header), ..v1::StateChunk::default() };
    let of_records = |records: Vec<Record>| v1::StateChunk {
        unrecorded: records.into_iter().map(convert::record_to_wire).collect(),
        ..v1::StateChunk::default()
    };
    let records: Vec<v1::StateChunk> = batches(offer.unrecorded.iter().cloned()).map(of_records).collect();
    let state = offer.state.clone();
    let data = (0..state.len()).step_by(CHUNK_BYTES).map(move |start| {
        let data = state[start..(start + CHUNK_BYTES).min(state.len())].to_vec();
        let blake3 = blake3::hash(&data).to_hex().to_string();
        v1::StateChunk { data, blake3, ..v1::StateChunk::default() }
    });
    std::iter::once(first).chain(records).chain(data)
}

/// What was fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) position: Position,
    pub(crate) state: Vec<u8>,
    pub(crate) unrecorded: Vec<Record>,
}

/// Why a state could not be fetched. The generation is broken then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("cannot reach the peer at {address}")]
    Connect { address: String, source: tonic::transport::Error },
    #[error("the peer at {address} did not deliver: {cause}")]
    Refused { address: String, cause: String },
    #[error("the state from {address} is damaged: {what}")]
    Damaged { address: String, what: &'static str },
}

/// Fetches the state of a forming group's trial from the member at `address`.
pub(crate) async fn fetch(address: &str, trial: &TrialId, generation: Generation) -> Result<Fetched, FetchError> {
    let connect = |source| FetchError::Connect { address: address.to_owned(), source };
    let refused = |cause: String| FetchError::Refused { address: address.to_owned(), cause };
    let damaged = |what| FetchError::Damaged { address: address.to_owned(), what };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(connect)?.connect_timeout(CHUNK_LIMIT);
    let mut client =
        PeerClient::new(endpoint.connect().await.map_err(connect)?).max_decoding_message_size(proto::MESSAGE_BYTES_MAX);
    let request = v1::FetchStateRequest { trial: trial.to_string(), generation: generation.0 };
    let stream = client.fetch_state(request).await.map_err(|s| refused(s.message().to_owned()))?.into_inner();
    let stream = stream.timeout(CHUNK_LIMIT);
    tokio::pin!(stream);

    let mut arriving: Option<Arriving> = None;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| refused(format!("no chunk within {} s", CHUNK_LIMIT.as_secs())))?;
        let chunk = chunk.map_err(|s| refused(s.message().to_owned()))?;
        match &mut arriving {
            None => arriving = Some(Arriving::new(chunk).map_err(damaged)?),
            Some(arriving) => arriving.take(chunk).map_err(damaged)?,
        }
    }
    arriving.ok_or("it is empty").and_then(Arriving::finish).map_err(damaged)
}

/// A state of which some chunks have come.
struct Arriving {
    header: v1::StateHeader,
    position: Position,
    state: Vec<u8>,
    unrecorded: Vec<Record>,
}

impl Arriving {
    fn new(first: v1::StateChunk) -> Result<Self, &'static str> {
        let header = first.header.ok_or("the header is missing")?;
        let position = header.position.map(convert::position_from_wire).ok_or("its position is missing")?;
        Ok(Self { header, position, state: Vec::new(), unrecorded: Vec::new() })
    }

    fn take(&mut self, chunk: v1::StateChunk) -> Result<(), &'static str> {
        let v1::StateChunk { header, data, blake3, unrecorded } = chunk;
        if header.is_some() {
            return Err("a second header came");
        }
        for record in unrecorded {
            self.unrecorded.push(convert::record_from_wire(record).map_err(|_| "a record does not hold together")?);
        }
        if data.is_empty() {
            return Ok(());
        }
        if blake3::hash(&data).to_hex().as_str() != blake3 {
            return Err("a chunk does not match its hash");
        }
        if (self.state.len() + data.len()) as u64 > self.header.bytes {
            return Err("it is longer than announced");
        }
        self.state.extend_from_slice(&data);
        Ok(())
    }

    fn finish(self) -> Result<Fetched, &'static str> {
        let Self { header, position, state, unrecorded } = self;
        if state.len() as u64 != header.bytes || blake3::hash(&state).to_hex().as_str() != header.blake3 {
            return Err("the whole does not match its hash");
        }
        if unrecorded.len() as u64 != header.unrecorded {
            return Err("records are missing");
        }
        let ascending = unrecorded.windows(2).all(|pair| pair[0].position() < pair[1].position());
        if !ascending || unrecorded.last().is_some_and(|last| last.position() > position) {
            return Err("its records are out of order");
        }
        Ok(Fetched { position, state, unrecorded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ids::Step;
    use domain::record::EvalRecord;

    fn record(step: u64) -> Record {
        Record::Eval(EvalRecord { step: Step(step), generation: Generation(1), loss: 0.5, accuracy: 0.5, samples: 2 })
    }

    fn offer(state: Vec<u8>, records: u64) -> Offer {
        Offer {
            trial: "a/0".parse().unwrap(),
            generation: Generation(4),
            position: Position { step: Step(records), evaluated: true },
            state: state.into(),
            unrecorded: (1..=records).map(record).collect(),
        }
    }

    #[tokio::test]
    async fn a_state_arrives_whole_or_not_at_all() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (offers, shutdown) = (Offers::default(), CancellationToken::new());
        tokio::spawn(serve(listener, offers.clone(), shutdown.clone()));
        let trial: TrialId = "a/0".parse().unwrap();
        let state: Vec<u8> = (0..3 * CHUNK_BYTES + 7).map(|i| (i % 251) as u8).collect();
        let early = tokio::spawn({
            let (address, trial) = (address.clone(), trial.clone());
            async move { fetch(&address, &trial, Generation(4)).await }
        });
        let offer = offer(state, 20_000);
        let (position, state, unrecorded) = (offer.position, offer.state.clone(), offer.unrecorded.clone());
        offers.publish(offer);
        let fetched = early.await.unwrap().unwrap();
        assert_eq!((fetched.position, fetched.state == state, fetched.unrecorded), (position, true, unrecorded));
        offers.withdraw();
        shutdown.cancel();
    }

    fn receive(chunks: Vec<v1::StateChunk>) -> Result<Fetched, &'static str> {
        let mut chunks = chunks.into_iter();
        let mut arriving = Arriving::new(chunks.next().ok_or("it is empty")?)?;
        chunks.try_for_each(|chunk| arriving.take(chunk))?;
        arriving.finish()
    }

    #[test]
    fn damage_is_refused() {
        type Harm = fn(&mut Vec<v1::StateChunk>);
        let cases: [(Harm, &str); 9] = [
            (|c| c.clear(), "it is empty"),
            (|c| drop(c.remove(0)), "the header is missing"),
            (|c| c[0].header.as_mut().unwrap().position = None, "its position is missing"),
            (|c| c.push(c[0].clone()), "a second header came"),
            (|c| c[2].data[0] ^= 1, "a chunk does not match its hash"),
            (|c| c.push(c[2].clone()), "it is longer than announced"),
            (|c| drop(c.pop()), "the whole does not match its hash"),
            (|c| drop(c.remove(1)), "records are missing"),
            (|c| c[1].unrecorded.reverse(), "its records are out of order"),
        ];
        let whole: Vec<_> = chunks(&offer(vec![7; CHUNK_BYTES + 1], 2)).collect();
        assert!(receive(whole.clone()).is_ok());
        for (harm, expected) in cases {
            let mut chunks = whole.clone();
            harm(&mut chunks);
            assert_eq!(receive(chunks).map(|f| f.position), Err(expected));
        }
    }
}
