/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The commit protocol, and a crash at any point of it.  Documentation/model.rst says
 * what stands for what.  Names of steps are those of commit-protocol.rst.
 *
 * -DBUG_... puts in a mistake, which must be found.
 */

#ifndef WRITES
#define WRITES	3		/* first writes to blocks of one chunk */
#endif
#ifndef SLOTS
#define SLOTS	4		/* of the ring; an entry takes one */
#endif
#define TORN	255
#define NONE	254

/* Room for an entry, and one slot, is kept free (a). */
#ifdef BUG_TAIL_EARLY
#define LIMIT	SLOTS
#else
#define LIMIT	(SLOTS - 2)
#endif

bool dead;			/* the crash has come */

/* ---- in memory ---- */

byte bat;			/* version of the BAT page: so many blocks have a place */
byte bits;			/* of the bitmap page: 2k - 1: k cleared, 2k: k set */
bool bat_dirty, bits_dirty;
byte submitted, completed;	/* data writes, in order */
byte flushed;			/* those that a flush covered which has completed */
byte waiting = NONE;		/* a flush waits; it covers so many */
bool closing;

/* The last images that a durable entry has, and that are not in place; NONE: none. */
byte image_bat = NONE, image_bits = NONE;
bool all_in_place;
byte head, tail, used, sequence;

/* ---- on the disk: durable, and what is on the way ---- */

byte data_durable;		/* bit k - 1: the data of write k */
byte bat_place, bits_place;	/* versions in place */
byte bat_way = NONE, bits_way = NONE;

typedef entry_t {
	byte guid;		/* 0: no valid entry */
	byte sequence;
	byte tail;
	byte bat;		/* images, or NONE */
	byte bits;
};
entry_t ring[SLOTS];
entry_t way;			/* the entry on the way */
byte way_slot = NONE;

byte header_sequence[2];	/* TORN: not valid */
byte header_guid[2];
byte header_way = NONE;		/* this copy is on the way, with: */
byte header_way_sequence, header_way_guid;

/* ---- what the device does ---- */

/*
 * A flush: all that had completed is durable.  Data that was only submitted may be
 * there, and may not.
 */
inline flush()
{
	data_durable = data_durable | ((1 << completed) - 1);
	if
	:: bat_way != NONE -> bat_place = bat_way; bat_way = NONE
	:: else
	fi;
	if
	:: bits_way != NONE -> bits_place = bits_way; bits_way = NONE
	:: else
	fi
}

/* ---- writers ---- */

proctype writer()
{
	do
	:: atomic {
		!dead && submitted < WRITES && submitted == completed ->
		/* A place is taken, and the block's bits are cleared. */
		submitted++;
		bat = submitted; bat_dirty = true;
#ifdef BUG_BITS_BEFORE_DATA
		bits = 2 * submitted;
#else
		bits = 2 * submitted - 1;
#endif
		bits_dirty = true
	   }
	:: atomic {
		!dead && completed < submitted ->
		completed++;
		if
		:: bits < 2 * completed -> bits = 2 * completed; bits_dirty = true
		:: else
		fi
	   }
	/* Somebody asks for a flush. */
	:: atomic { !dead && waiting == NONE && !closing && flushed < completed ->
		waiting = completed }
	:: atomic { !dead && completed == WRITES && waiting == NONE -> closing = true; break }
	od
}

/* ---- the commit, one at a time ---- */

byte frozen_bat, frozen_bits, covered;
bool stop;

inline freeze_bat()		/* 2 */
{
	atomic {
		frozen_bat = NONE;
		if
		:: bat_dirty -> frozen_bat = bat; bat_dirty = false
		:: else
		fi
	}
}

inline freeze_bits()		/* 3 */
{
	atomic {
		frozen_bits = NONE;
		if
		:: bits_dirty -> frozen_bits = bits; bits_dirty = false
		:: else
		fi
	}
}

inline freeze()
{
#ifdef BUG_BITMAP_FIRST
	freeze_bits();
	freeze_bat();
#else
	freeze_bat();
	freeze_bits();
#endif
}

/* Step 8; each page is written on its own. */
inline apply()
{
	atomic { !dead -> skip };
	if
	:: image_bat != NONE -> atomic { !dead -> bat_way = image_bat; image_bat = NONE }
	:: else
	fi;
	if
	:: image_bits != NONE -> atomic { !dead -> bits_way = image_bits; image_bits = NONE }
	:: else
	fi;
	all_in_place = true
}

/* The entry, with its flush in front. */
inline log_write(flush_first)
{
	atomic {
		!dead ->
		way.guid = 1;
		way.sequence = sequence + 1;
		way.bat = frozen_bat;
		way.bits = frozen_bits;
		if
		:: all_in_place -> way.tail = head		/* b */
		:: else -> way.tail = tail
		fi;
		if
		:: flush_first -> flush()
		:: else
		fi;
		way_slot = head
	};
	atomic {
		!dead ->
		ring[head].guid = way.guid;
		ring[head].sequence = way.sequence;
		ring[head].tail = way.tail;
		ring[head].bat = way.bat;
		ring[head].bits = way.bits;
		way_slot = NONE;
		if
		:: all_in_place -> tail = head; used = 1	/* c */
		:: else -> used++
		fi;
		all_in_place = false;
		sequence++;
		head = (head + 1) % SLOTS
	}
}

/* The copy that is not current, then flush. */
inline write_header(copy, number, new_guid)
{
	atomic { !dead -> header_way = copy; header_way_sequence = number;
		header_way_guid = new_guid };
	atomic { !dead -> header_sequence[copy] = number; header_guid[copy] = new_guid;
		header_way = NONE; flush() }
}

proctype committer()
{
	/* The session starts with the first write. */
	!dead && bat_dirty;
	frozen_bat = NONE;
	frozen_bits = NONE;
#ifdef BUG_HEADER_FIRST
	write_header(0, 3, 1);
	write_header(1, 4, 1);
	all_in_place = true;
	log_write(true);
#else
	all_in_place = true;
	log_write(true);				/* i */
	write_header(0, 3, 1);				/* ii */
	write_header(1, 4, 1);
#endif

	do
	:: atomic { !dead && (waiting != NONE || bat_dirty || bits_dirty) ->
		covered = waiting };			/* 1 */
		if
		:: used + 1 > LIMIT && !all_in_place -> apply()	/* a */
		:: else
		fi;
#ifdef BUG_IMAGES_AFTER_FLUSH
		atomic { !dead -> flush() };
		freeze();
		log_write(false);
#else
		freeze();
#ifdef BUG_APPLY_BEFORE_ENTRY
		atomic { !dead -> if :: frozen_bits != NONE -> bits_way = frozen_bits
				     :: else fi };
#endif
#ifdef BUG_NO_PREFLUSH
		log_write(false);			/* 4 */
#else
		log_write(true);
#endif
#endif
		atomic {
			!dead ->			/* 5 */
			if
			:: covered != NONE ->
				if
				:: covered > flushed -> flushed = covered
				:: else
				fi;
				waiting = NONE
			:: else
			fi;
			if				/* 6 */
			:: frozen_bat != NONE -> image_bat = frozen_bat
			:: else
			fi;
			if
			:: frozen_bits != NONE -> image_bits = frozen_bits
			:: else
			fi
		};
		/* 8, if it is due, or if memory is short. */
		if
		:: !all_in_place -> apply()
		:: used + 1 <= LIMIT || all_in_place -> skip
		fi
	:: !dead && closing && !bat_dirty && !bits_dirty && waiting == NONE -> break
	od;

	/* iv, v */
	apply();
	atomic { !dead -> flush() };
	write_header(0, 5, 0);
	write_header(1, 6, 0);
	atomic { !dead -> flushed = completed };
#ifdef REACHED
	/* The model comes to its end, and has gone around the ring. */
	assert(sequence <= SLOTS)
#endif
}

/* ---- the crash, and the recovery ---- */

hidden byte i, j, start, length, found, best, best_tail, data, got_bat, got_bits, seen;
hidden byte guid;

/* What was on the way is there, or not, or torn. */
inline lose()
{
	if
	:: header_way != NONE ->
		if
		:: header_sequence[header_way] = header_way_sequence;
			header_guid[header_way] = header_way_guid
		:: header_sequence[header_way] = TORN
		:: skip
		fi
	:: else
	fi;
	if
	:: way_slot != NONE ->
		if
		:: ring[way_slot].guid = way.guid;
			ring[way_slot].sequence = way.sequence;
			ring[way_slot].tail = way.tail;
			ring[way_slot].bat = way.bat;
			ring[way_slot].bits = way.bits
		:: ring[way_slot].guid = 0
		:: skip
		fi
	:: else
	fi;
	if
	:: bat_way != NONE ->
		if
		:: bat_place = bat_way
		:: bat_place = TORN
		:: skip
		fi
	:: else
	fi;
	if
	:: bits_way != NONE ->
		if
		:: bits_place = bits_way
		:: bits_place = TORN
		:: skip
		fi
	:: else
	fi;
	/* Any of the data that is not durable may be there. */
	data = data_durable;
	i = 0;
	do
	:: i < submitted && data & (1 << i) -> i++
	:: i < submitted && !(data & (1 << i)) ->
		if
		:: data = data | (1 << i)
		:: skip
		fi;
		i++
	:: else -> break
	od
}

/*
 * From each slot on, follow the sequence; what it ends with must name a tail that is
 * in it.  The one with the highest number counts.
 */
inline search()
{
	found = 0;
	best = 0;
	start = 0;
	do
	:: start < SLOTS ->
		length = 0;
		do
		:: length < SLOTS && ring[(start + length) % SLOTS].guid == guid &&
		   (length == 0 || ring[(start + length) % SLOTS].sequence ==
				   ring[start].sequence + length) -> length++
		:: else -> break
		od;
		if
		:: length > 0 ->
			i = (start + length - 1) % SLOTS;
			if
			:: (ring[i].tail + SLOTS - start) % SLOTS < length &&
			   ring[i].sequence > best ->
				found = 1;
				best = ring[i].sequence;
				best_tail = ring[i].tail
			:: else
			fi
		:: else
		fi;
		start++
	:: else -> break
	od
}

inline replay()
{
	got_bat = bat_place;
	got_bits = bits_place;
	if
	:: guid != 0 ->
		search();
		/* A log that nobody can replay: the image cannot be opened. */
		assert(found);
		i = best_tail;
		do
		:: true ->
			if
			:: ring[i].bat != NONE -> got_bat = ring[i].bat
			:: else
			fi;
			if
			:: ring[i].bits != NONE -> got_bits = ring[i].bits
			:: else
			fi;
			if
			:: ring[i].sequence == best -> break
			:: else -> i = (i + 1) % SLOTS
			fi
		od
	:: else
	fi
}

inline judge()
{
	/* Nothing that is torn is left. */
	assert(got_bat != TORN && got_bits != TORN);
	/* A block that has a place has had its bits cleared. */
	assert(got_bat == 0 || got_bits >= 2 * got_bat - 1);
	/* What is said to be there is there. */
	j = 1;
	do
	:: j <= got_bat ->
		assert(got_bits < 2 * j || (data & (1 << (j - 1))));
		j++
	:: else -> break
	od;
	/* Nothing that was flushed is lost. */
	assert(got_bat >= flushed && got_bits >= 2 * flushed)
}

inline forget()
{
	header_sequence[0] = 0; header_sequence[1] = 0;
	header_guid[0] = 0; header_guid[1] = 0;
	header_way = NONE; way_slot = NONE; bat_way = NONE; bits_way = NONE;
	bat_place = 0; bits_place = 0; data_durable = 0;
	i = 0;
	do
	:: i < SLOTS ->
		ring[i].guid = 0; ring[i].sequence = 0; ring[i].tail = 0;
		ring[i].bat = 0; ring[i].bits = 0;
		i++
	:: else -> break
	od
}

proctype crash()
{
	atomic {
		!dead -> dead = true;
		lose();
		if
		:: header_sequence[0] == TORN -> assert(header_sequence[1] != TORN);
			guid = header_guid[1]
		:: header_sequence[1] == TORN -> guid = header_guid[0]
		:: else ->
			if
			:: header_sequence[0] > header_sequence[1] -> guid = header_guid[0]
			:: else -> guid = header_guid[1]
			fi
		fi;
		replay();
		judge();
		/* All ends are one. */
		forget()
	}
}

init {
	atomic {
		header_sequence[0] = 1;
		header_sequence[1] = 2;
		run writer();
		run committer();
		run crash()
	}
}
