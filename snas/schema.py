"""The registry's tables, as numbered migrations. A migration that has been released is never edited."""

from __future__ import annotations

APPLICATION_ID = 0x534E4153  # "SNAS": tells our files from other SQLite files

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE studies (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created TEXT NOT NULL,
        identity TEXT NOT NULL,          -- JSON: what must not change when the study is resumed
        samples INTEGER NOT NULL,
        environment TEXT NOT NULL        -- JSON: versions, device, threads of the process that started it
    );
    CREATE TABLE entries (               -- rows of the leaderboard: an architecture and how it is trained
        id INTEGER PRIMARY KEY,
        study_id INTEGER REFERENCES studies (id),
        key TEXT NOT NULL UNIQUE,        -- what makes it the same entry when it is asked for again
        name TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('searched', 'baseline', 'cited')),
        method TEXT NOT NULL,
        space TEXT NOT NULL,             -- JSON: SearchSpace.describe()
        dataset TEXT NOT NULL,           -- JSON: name, fingerprint, split, sizes
        rule TEXT NOT NULL,              -- JSON: training rule, initialization
        strategy TEXT NOT NULL,
        mask_rule TEXT NOT NULL,
        seed INTEGER NOT NULL,
        kept_weights INTEGER NOT NULL,
        total_weights INTEGER NOT NULL,
        kept TEXT NOT NULL,              -- JSON: kept weights by layer where they are given, {} where a rule sets them
        candidate INTEGER,               -- number of the candidate that it is, for searched ones
        search_epochs INTEGER NOT NULL,  -- epochs that the search for it took
        search_seconds REAL NOT NULL,
        superseded INTEGER NOT NULL DEFAULT 0,  -- 1: of an earlier winner of a study that has grown
        environment TEXT NOT NULL,
        created TEXT NOT NULL
    );
    CREATE TABLE trainings (             -- one network in training: a candidate of a study, or one seed of an entry
        id INTEGER PRIMARY KEY,
        study_id INTEGER REFERENCES studies (id),
        entry_id INTEGER REFERENCES entries (id),
        number INTEGER NOT NULL,         -- candidate 0, 1, 2 ... of the study, or seed 0, 1, 2 ... of the entry
        seed INTEGER NOT NULL,
        point TEXT,                      -- JSON: the proposed point of the unit cube, for candidates
        kept TEXT NOT NULL,              -- JSON: kept weights by layer, {} until known
        mask_checksum TEXT,
        status TEXT NOT NULL,
        reason TEXT,
        test_loss REAL,
        test_accuracy REAL,
        created TEXT NOT NULL,
        CHECK ((study_id IS NULL) != (entry_id IS NULL)),
        UNIQUE (study_id, number),
        UNIQUE (entry_id, number)
    );
    CREATE TABLE environments (          -- where epochs were trained: a resumed network may have seen several
        id INTEGER PRIMARY KEY,
        content TEXT NOT NULL UNIQUE     -- JSON: versions, device, threads
    );
    CREATE TABLE reports (
        training_id INTEGER NOT NULL REFERENCES trainings (id),
        epoch INTEGER NOT NULL,
        train_loss REAL NOT NULL,
        train_accuracy REAL NOT NULL,
        validation_loss REAL NOT NULL,
        validation_accuracy REAL NOT NULL,
        seconds REAL NOT NULL,
        recorded TEXT NOT NULL,
        environment_id INTEGER REFERENCES environments (id),
        PRIMARY KEY (training_id, epoch)
    ) WITHOUT ROWID;
    """,
    # Published figures: where a figure was printed, and what it says; accuracy on the test data, as fractions.
    """
    ALTER TABLE entries ADD COLUMN source TEXT NOT NULL DEFAULT '';
    ALTER TABLE entries ADD COLUMN cited_density REAL;
    ALTER TABLE entries ADD COLUMN cited_accuracy REAL;
    ALTER TABLE entries ADD COLUMN cited_std REAL;
    ALTER TABLE entries ADD COLUMN cited_seeds INTEGER;
    """,
    # Candidates differ in more than densities, are measured before training, and may be trained again on fresh seeds.
    # SQLite cannot change a UNIQUE constraint in place: the table is copied. Foreign keys are off while it is.
    """
    CREATE TABLE trainings_3 (           -- one network in training: a candidate of a study, or one seed of an entry
        id INTEGER PRIMARY KEY,
        study_id INTEGER REFERENCES studies (id),
        entry_id INTEGER REFERENCES entries (id),
        number INTEGER NOT NULL,         -- candidate 0, 1, 2 ... of the study, or seed 0, 1, 2 ... of the entry
        repeat INTEGER NOT NULL DEFAULT 0,  -- 0: the candidate itself; 1, 2 ...: trained again on a fresh seed
        seed INTEGER NOT NULL,
        point TEXT,                      -- JSON: the proposed point of the unit cube, for candidates
        kept TEXT NOT NULL,              -- JSON: kept weights by layer, {} until known
        traits TEXT NOT NULL DEFAULT '{}',   -- JSON: rule of mask and training, searched arguments, where it came from
        signals TEXT NOT NULL DEFAULT '{}',  -- JSON: what was measured before training, by name
        mask_checksum TEXT,
        status TEXT NOT NULL,
        reason TEXT,
        test_loss REAL,
        test_accuracy REAL,
        created TEXT NOT NULL,
        CHECK ((study_id IS NULL) != (entry_id IS NULL)),
        UNIQUE (study_id, number, repeat),
        UNIQUE (entry_id, number)
    );
    INSERT INTO trainings_3 (id, study_id, entry_id, number, seed, point, kept, mask_checksum, status, reason,
        test_loss, test_accuracy, created)
        SELECT id, study_id, entry_id, number, seed, point, kept, mask_checksum, status, reason, test_loss,
        test_accuracy, created FROM trainings;
    DROP TABLE trainings;
    ALTER TABLE trainings_3 RENAME TO trainings;
    """,
    # Who works on a study, so that one that was killed can be told from one that is slow. What studies of networks
    # measure, a cell of their grids at a time, and what was measured in training beside losses.
    """
    CREATE TABLE workers (               -- the process that works on a study, or did last
        study_id INTEGER PRIMARY KEY REFERENCES studies (id),
        host TEXT NOT NULL,
        machine TEXT NOT NULL,           -- boot and process namespace: where else a pid means nothing
        pid INTEGER NOT NULL,
        process_start TEXT NOT NULL,     -- in ticks since the boot: tells another process of the same pid
        began TEXT NOT NULL,
        seen TEXT NOT NULL,              -- the last sign of life, written with its results
        ended TEXT,                      -- NULL while it works, and where it was killed
        outcome TEXT                     -- 'finished', or why it stopped
    );
    CREATE TABLE measurements (
        id INTEGER PRIMARY KEY,
        study TEXT NOT NULL,
        key TEXT NOT NULL,               -- JSON: all that the result depends on, in a fixed order
        cell TEXT NOT NULL,              -- JSON: the factors of the grid
        result TEXT NOT NULL,            -- JSON, {} where the network was refused or failed
        reason TEXT,                     -- why it was
        seconds REAL NOT NULL,
        environment_id INTEGER REFERENCES environments (id),
        created TEXT NOT NULL,
        UNIQUE (study, key)
    );
    ALTER TABLE reports ADD COLUMN measured TEXT;  -- JSON: name -> number, NULL where nothing was
    """,
)
