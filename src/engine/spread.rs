//! Several volumes: a value for each of their segments, and on which of them the next segment is taken.
//!
//! Volumes take turns, each as often as is its share of the free segments, so that all are busy and become full at one
//! time. Logs and data segments each have turns of their own, because logs are what small writes wait for. A segment is
//! filled by one core, one write after the other, so how many are open on a volume says how deep its queue is: one that
//! falls behind the others gets fewer.
//!
//! Invariant: what is chosen depends on what was given and taken before, and on nothing else.

use crate::engine::message::Content;
use crate::io::{SegmentId, VolumeState};
use std::ops::{Index, IndexMut};

/// A value for each segment of the volumes that are there.
pub struct PerSegment<T> {
    volumes: Vec<Vec<T>>,
}

impl<T: Clone> PerSegment<T> {
    pub fn new(volumes: &[VolumeState], value: T) -> PerSegment<T> {
        let of = |state: &VolumeState| match state {
            VolumeState::Present { segments_max, .. } => vec![value.clone(); *segments_max as usize],
            VolumeState::Missing => Vec::new(),
        };
        PerSegment {
            volumes: volumes.iter().map(of).collect(),
        }
    }
}

impl<T> PerSegment<T> {
    pub fn len(&self) -> usize {
        self.volumes.iter().map(Vec::len).sum()
    }

    /// All segments, in order of their numbers.
    pub fn ids(&self) -> impl Iterator<Item = SegmentId> + use<T> {
        let lengths: Vec<u32> = self.volumes.iter().map(|volume| volume.len() as u32).collect();
        let volumes = lengths.into_iter().enumerate();
        volumes.flat_map(|(volume, length)| (0..length).map(move |place| SegmentId::new(volume, place)))
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.volumes.iter().flatten()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.volumes.iter_mut().flatten()
    }

    /// Each segment with its value, in order of their numbers.
    pub fn entries(&self) -> impl Iterator<Item = (SegmentId, &T)> {
        self.ids().zip(self.values())
    }

    /// As [`PerSegment::entries`], from a number on.
    pub fn entries_from(&self, from: SegmentId) -> impl Iterator<Item = (SegmentId, &T)> {
        let volumes = self.volumes.iter().enumerate().skip(from.volume());
        volumes.flat_map(move |(volume, values)| {
            let first = if volume == from.volume() { from.place() } else { 0 };
            let places = values.iter().enumerate().skip(first as usize);
            places.map(move |(place, value)| (SegmentId::new(volume, place as u32), value))
        })
    }

    /// `None` on a volume that is missing, and beyond the end of one.
    pub fn get_mut(&mut self, id: SegmentId) -> Option<&mut T> {
        self.volumes.get_mut(id.volume())?.get_mut(id.place() as usize)
    }
}

impl<T> Index<SegmentId> for PerSegment<T> {
    type Output = T;

    fn index(&self, id: SegmentId) -> &T {
        &self.volumes[id.volume()][id.place() as usize]
    }
}

impl<T> IndexMut<SegmentId> for PerSegment<T> {
    fn index_mut(&mut self, id: SegmentId) -> &mut T {
        &mut self.volumes[id.volume()][id.place() as usize]
    }
}

/// How many segments are taken elsewhere, if there is room, after one could not be made or written.
const PASSED_OVER: u64 = 32;
/// What a free segment weighs, so that its parts are whole numbers.
const WEIGHT_OF_ONE: u64 = 1 << 10;

/// Whose turn it is.
pub struct Spread {
    /// Segments taken so far.
    taken: u64,
    volumes: Vec<Turns>,
}

#[derive(Clone, Copy, Default)]
struct Turns {
    /// Until so many segments were taken, others come first.
    passed_over_until: u64,
    /// What the volume is owed, of logs and of data segments.
    credit_logs: i64,
    credit_data: i64,
}

impl Turns {
    fn credit(&mut self, content: Content) -> &mut i64 {
        match content {
            Content::Log => &mut self.credit_logs,
            Content::Data | Content::Index => &mut self.credit_data,
        }
    }
}

/// One volume, as far as the choice goes.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Room {
    /// Segments that can be had at once.
    pub ready: u64,
    /// Segments that are free.
    pub free: u64,
    pub open_logs: u64,
    pub open_data: u64,
}

impl Room {
    fn open(&self, content: Content) -> u64 {
        match content {
            Content::Log => self.open_logs,
            Content::Data | Content::Index => self.open_data,
        }
    }
}

impl Spread {
    pub fn new(volumes: usize) -> Spread {
        Spread {
            taken: 0,
            volumes: vec![Turns::default(); volumes],
        }
    }

    /// A segment of that volume could not be made or written.
    pub fn failed(&mut self, volume: usize) {
        self.volumes[volume].passed_over_until = self.taken + PASSED_OVER;
    }

    /// The volume of which the next segment for `content` is taken; `None` if none has one ready.
    pub fn choose(&mut self, rooms: &[Room], content: Content) -> Option<usize> {
        let ready = || (0..rooms.len()).filter(|&at| rooms[at].ready > 0);
        let is_sound = |at: &usize| self.volumes[*at].passed_over_until <= self.taken;
        let sound: Vec<usize> = ready().filter(is_sound).collect();
        let candidates = if sound.is_empty() {
            ready().collect()
        } else {
            sound
        };
        let fewest = candidates.iter().map(|&at| rooms[at].open(content)).min()?;
        // One more than another is nothing: cores may be as many as that.
        let behind = |room: &Room| room.open(content).saturating_sub(fewest + 1);
        let weight = |at: usize| (rooms[at].free * WEIGHT_OF_ONE / (1 + behind(&rooms[at]))) as i64;
        let mut total = 0;
        for &at in &candidates {
            *self.volumes[at].credit(content) += weight(at);
            total += weight(at);
        }
        // Of equals the first.
        let chosen = candidates
            .into_iter()
            .rev()
            .max_by_key(|&at| *self.volumes[at].credit(content))?;
        *self.volumes[chosen].credit(content) -= total;
        self.taken += 1;
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Room = Room {
        ready: 100,
        free: 100,
        open_logs: 0,
        open_data: 0,
    };

    /// Takes segments, `Log` and `Data` in turn, and says how many of each came to lie on each volume.
    fn fill(rooms: &mut [Room], spread: &mut Spread, count: usize) -> Vec<(u64, u64)> {
        for at in 0..count {
            let content = if at % 2 == 0 { Content::Log } else { Content::Data };
            let volume = spread.choose(rooms, content).expect("one is ready");
            let room = &mut rooms[volume];
            room.ready -= 1;
            room.free -= 1;
            match content {
                Content::Log => room.open_logs += 1,
                Content::Data | Content::Index => room.open_data += 1,
            }
        }
        rooms
            .iter()
            .map(|room| (room.open_logs, room.open_data))
            .collect()
    }

    #[test]
    fn open_segments_of_each_kind_lie_on_all_volumes() {
        assert_eq!(fill(&mut [EMPTY; 2], &mut Spread::new(2), 8), [(2, 2), (2, 2)]);
        assert_eq!(fill(&mut [EMPTY; 3], &mut Spread::new(3), 12), [(2, 2); 3]);
    }

    #[test]
    fn volumes_become_full_at_one_time_whatever_their_size() {
        let mut rooms = [100, 300].map(|free| Room {
            ready: free,
            free,
            open_logs: 2,
            // Such a difference lasts, and must not weigh.
            open_data: free / 100,
        });
        rooms[1].open_data = 2;
        let mut spread = Spread::new(2);
        for taken in 1..=400 {
            let volume = spread.choose(&rooms, Content::Data).unwrap();
            rooms[volume].ready -= 1;
            rooms[volume].free -= 1;
            let [small, large] = rooms.map(|room| room.free as f64);
            assert!(
                (small - large / 3.0).abs() <= 2.0,
                "{small} and {large} after {taken}"
            );
        }
    }

    #[test]
    fn a_volume_that_falls_behind_gets_fewer() {
        let slow = Room {
            open_data: 4,
            ..EMPTY
        };
        let mut spread = Spread::new(2);
        let chosen = (0..100).filter(|_| spread.choose(&[EMPTY, slow], Content::Data) == Some(1));
        assert_eq!(chosen.count(), 20);
    }

    #[test]
    fn what_failed_is_passed_over_for_a_while_if_there_is_room_elsewhere() {
        let mut spread = Spread::new(2);
        spread.failed(0);
        for _ in 0..PASSED_OVER {
            assert_eq!(spread.choose(&[EMPTY; 2], Content::Log), Some(1));
        }
        assert_eq!(spread.choose(&[EMPTY; 2], Content::Log), Some(0));
        spread.failed(0);
        let full = Room { ready: 0, ..EMPTY };
        assert_eq!(spread.choose(&[EMPTY, full], Content::Log), Some(0));
        assert_eq!(spread.choose(&[full; 2], Content::Log), None);
    }

    #[test]
    fn a_value_for_each_segment_of_what_is_there() {
        let here = |segments_max| VolumeState::Present {
            segments_max,
            segments_known: 0,
        };
        let mut table = PerSegment::new(&[here(2), VolumeState::Missing, here(1)], 0);
        let ids = [SegmentId(0), SegmentId(1), SegmentId(0x0200_0000)];
        assert_eq!(table.ids().collect::<Vec<_>>(), ids);
        table[ids[2]] = 7;
        assert_eq!(
            table.entries().map(|(_, value)| *value).collect::<Vec<_>>(),
            [0, 0, 7]
        );
        assert!(table.get_mut(SegmentId(0x0100_0000)).is_none());
        assert!(table.get_mut(SegmentId(2)).is_none());
        assert_eq!(table.len(), 3);
    }
}
