"""`Gallery`: people remembered in a folder, and found again."""

from __future__ import annotations

import difflib
import json
import os
import secrets
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipse.errors import FingerprintMismatch, GalleryError
from ipse.gallery import calibrate as calibration
from ipse.gallery import exchange, migrate
from ipse.gallery.calibrate import Calibration
from ipse.gallery.fuse import Fused, fuse
from ipse.gallery.protect import Protection
from ipse.gallery.rows import (
    Crop,
    assumed_consent,
    clean_name,
    common_consent,
    now,
    quoted,
    schema,
    to_rows,
    vector_column,
    vectors_of,
    with_cards,
    with_columns,
)
from ipse.gallery.search import Hit, nearest_people, tend_index
from ipse.gallery.store import Store, scan
from ipse.gallery.values import Answer, EncoderSpec, Grouping, Match, Migration, PersonInfo, Threshold
from ipse.identity import Identity

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

    from ipse.encoders import Encoder

# A calibration made with fewer templates than this share of today's is too lax.
_OUTGROWN = 0.8
# Up to so many names are looked up by name; for more, all names are read once.
_FEW = 200


class UncalibratedWarning(UserWarning):
    """A search answers with a threshold that nobody has checked for this gallery."""


class Gallery:
    """People and their templates in a folder, searchable.

    Several processes may use one gallery at once: each write is one atomic step, writers wait for each other, and
    whatever happens to a process, what was acknowledged (a method that returned) stays. Open galleries see at once what
    others write. After importing it, start other processes with ``spawn``: Lance does not survive a ``fork``.

    Made by `Gallery.create` and `Gallery.open`.
    """

    def __init__(self, store: Store, encoder: EncoderSpec, key: str | bytes | None) -> None:
        self._store = store
        self.encoder = encoder
        self._protection: Protection | None = None
        self._checked: set[Grouping] = set()
        record = store.record["protection"]
        if record is not None and key is not None:
            self._protection = Protection.unlock(key, encoder.dim, record)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        encoder: Encoder | EncoderSpec,
        *,
        key: str | bytes | None = None,
        exist_ok: bool = False,
    ) -> Gallery:
        """Make a gallery in a new or empty folder.

        Parameters
        ----------
        path
            The folder.
        encoder
            Whose vectors it holds.
        key
            A passphrase to protect the vectors with: they are stored turned by a secret rotation. Whoever loses it
            loses the vectors. A protected gallery stores no crops, which would tell what the vectors hide.
        exist_ok
            Open a gallery that is there already.

        Raises
        ------
        GalleryError
            If there is a gallery or anything else (reason ``exists``), or the folder cannot be written
            (``unwritable``).
        FingerprintMismatch, GalleryError
            With `exist_ok`, as `open`.
        """
        spec = EncoderSpec.of(encoder)
        record = {
            "encoder": vars(spec),
            "protection": Protection.new(key, spec.dim).record if key is not None else None,
            "calibrations": {},
            "index": None,
            "forgetting": [],
        }
        Store.create(path, record, schema(spec.dim), exist_ok)
        return cls.open(path, encoder, key=key)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: Encoder | EncoderSpec | None = None,
        *,
        key: str | bytes | None = None,
    ) -> Gallery:
        """Open a gallery; nothing but its small record is read, whatever its size.

        If a process died while it forgot somebody, that is completed first.

        Parameters
        ----------
        path
            The folder.
        encoder
            The encoder that will make the queries, to be sure that it is the gallery's.
        key
            The passphrase of a protected gallery. Without it people can be listed and forgotten, but not searched,
            read or enrolled.

        Raises
        ------
        GalleryError
            If there is no gallery (reason ``missing``), it is damaged (``damaged``), or the key is another
            (``wrong-key``).
        FingerprintMismatch
            If the encoder is not the gallery's; it says how to migrate.
        """
        store = Store(path)
        try:
            spec = EncoderSpec(**store.record["encoder"])
        except (KeyError, TypeError) as error:
            raise GalleryError(
                f"The record of {os.fspath(path)} is damaged: {error}.", "Restore it from a backup.", reason="damaged"
            ) from error
        if encoder is not None:
            _require_encoder(spec, EncoderSpec.of(encoder))
        return cls(store, spec, key)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._store.path

    @property
    def protected(self) -> bool:
        """Whether the vectors are turned by a secret rotation."""
        return self._store.record["protection"] is not None

    def __len__(self) -> int:
        """How many templates there are."""
        copy = self._store.snapshot()
        return len(copy.cards) if copy else self._store.read(lambda table: table.count_rows())

    def __contains__(self, name: str) -> bool:
        return bool(self._ids([clean_name(name)]))

    def __repr__(self) -> str:
        return f"Gallery({str(self.path)!r}, encoder={self.encoder.name!r})"

    # -- people ------------------------------------------------------------------------------------------------------

    def enroll(
        self,
        name: str,
        templates: Identity | npt.ArrayLike,
        *,
        quality: npt.ArrayLike | None = None,
        provenance: Sequence[Mapping[str, Any]] = (),
        consent: Mapping[str, Any] | None = None,
        crops: Sequence[Crop] = (),
        add: bool = False,
    ) -> None:
        """Remember a person; when this returns, it is done for good.

        Parameters
        ----------
        name
            Who it is.
        templates
            An identity, or (N, D) or (D,) vectors of the gallery's encoder.
        quality, provenance
            As in `Identity`; taken from the identity where one is given. Searches can filter by the provenance keys
            ``camera``, ``date`` (ISO 8601), ``tags`` (a list) and ``source``.
        consent
            As in `Identity`, by default that of the identity. Where there is none at all, enrolling somebody is taken
            for the statement that they may be recognized, and no more.
        crops
            One per template: a picture of the face as a (H, W, 3) uint8 array or the bytes of an image file, to be
            encoded anew when the gallery moves to another encoder; or None.
        add
            Add to a person who is there already, instead of refusing.

        Raises
        ------
        GalleryError
            If the name is taken (reason ``name-clash``) or no name (``bad-name``), the key is missing (``needs-key``),
            crops are given to a protected gallery (``needs-key``), or the folder cannot be written (``unwritable``).
        FingerprintMismatch
            If the identity comes from another encoder.
        ValueError
            If shapes or values do not fit.
        """
        if isinstance(templates, Identity):
            identity = replace(templates, name=clean_name(name))
            given = {"quality": quality, "provenance": provenance or None, "consent": consent}
            identity = replace(identity, **{part: value for part, value in given.items() if value is not None})
        else:
            spec = self.encoder
            identity = Identity(
                clean_name(name),
                np.asarray(templates, np.float32),
                spec.name,
                spec.fingerprint,
                spec.metric,
                quality,  # type: ignore[arg-type] # converted there
                provenance,
                consent or {},
            )
        self.enroll_many([identity], crops={identity.name: crops} if len(crops) else {}, add=add)

    def enroll_many(
        self, identities: Iterable[Identity], *, crops: Mapping[str, Sequence[Crop]] | None = None, add: bool = False
    ) -> int:
        """Remember many people in one step: all of them or, on an error, none.

        Parameters
        ----------
        identities
            The people; a name that comes twice needs `add`.
        crops
            One sequence by name, as in `enroll`.
        add
            As in `enroll`.

        Returns
        -------
        int
            How many templates were added.

        Raises
        ------
        GalleryError, FingerprintMismatch, ValueError
            As `enroll`.
        """
        everybody = [self._admitted(identity) for identity in identities]
        if not everybody:
            return 0
        pictures = self._pictures(everybody, crops or {})
        plain = np.concatenate([identity.templates for identity in everybody])
        with self._store.writing():
            # The key may have changed since this gallery was opened.
            stored = self._hidden(plain)
            ids = self._new_ids([identity.name for identity in everybody], add)
            self._store.add(to_rows(everybody, stored, ids, pictures))
            self._tend()
        return len(plain)

    def people(self) -> list[PersonInfo]:
        """Everybody, by name."""

        def query(table: Table) -> pa.Table:
            rows = table.search().select(["person_id", "name", "consent", "added"]).to_arrow()
            counted = rows.group_by(["person_id", "name", "consent"])
            return counted.aggregate([("added", "min"), ("added", "count")])

        found: dict[str, list[dict[str, Any]]] = {}
        for row in self._store.read(query).to_pylist():
            found.setdefault(row["name"], []).append(row)
        return [
            PersonInfo(
                name,
                sum(row["added_count"] for row in entries),
                tuple(
                    sorted(
                        purpose
                        for purpose, allowed in common_consent([row["consent"] for row in entries])["purposes"].items()
                        if allowed
                    )
                ),
                min(row["added_min"] for row in entries).isoformat(timespec="seconds"),
            )
            for name, entries in sorted(found.items())
        ]

    def names(self) -> list[str]:
        """The names of everybody, sorted."""
        if copy := self._store.snapshot():
            return copy.names
        rows = self._store.read(lambda table: table.search().select(["name"]).to_arrow())
        return sorted(rows.column("name").unique().to_pylist())

    def person(self, name: str) -> Identity:
        """A person's templates with quality, provenance and consent; what all templates allow is allowed.

        Of a ``cosine`` encoder they have length 1.

        Raises
        ------
        GalleryError
            If nobody is called so (reason ``unknown-person``), or the key is missing (``needs-key``).
        """
        columns = ["name", "vector", "quality", "provenance", "consent"]
        rows = self._rows_of(name, columns)
        return Identity(
            rows.column("name")[0].as_py(),
            self._plain(vectors_of(rows)),
            self.encoder.name,
            self.encoder.fingerprint,
            self.encoder.metric,
            rows.column("quality").to_numpy(),
            [json.loads(text) for text in rows.column("provenance").to_pylist()],
            common_consent(rows.column("consent").to_pylist()),
        )

    def crops(self, name: str) -> list[bytes | None]:
        """The stored pictures of a person, one per template in the order of `person`: image files, or None.

        Raises
        ------
        GalleryError
            If nobody is called so (reason ``unknown-person``).
        """
        return self._rows_of(name, ["crop"]).column("crop").to_pylist()

    def fuse(self, name: str) -> Fused:
        """A person's templates as one vector, without those that do not fit the others; see `ipse.gallery.fuse`.

        Raises
        ------
        GalleryError
            As `person`.
        """
        identity = self.person(name)
        return fuse(identity.templates, identity.quality, metric=identity.metric, limit=self.threshold().value)

    def require(self, name: str, purpose: str) -> None:
        """Refuse a purpose that not all of a person's consent records allow.

        Raises
        ------
        ConsentError
            Naming the person and the purpose.
        GalleryError
            If nobody is called so (reason ``unknown-person``).
        """
        rows = self._rows_of(name, ["name", "consent"])
        consent = common_consent(rows.column("consent").to_pylist())
        self._without_vectors(rows.column("name")[0].as_py(), consent).require(purpose)

    def set_consent(self, name: str, consent: Mapping[str, Any]) -> None:
        """Replace the consent of all of a person's templates; who may not be recognized is found no more.

        Parameters
        ----------
        name
            Who.
        consent
            As in `Identity`.

        Raises
        ------
        GalleryError
            If nobody is called so (reason ``unknown-person``), or the folder cannot be written (``unwritable``).
        ValueError
            If the record is not one.
        """
        checked = self._without_vectors(name, consent)
        with self._store.writing():
            rows = self._rows_of(name, schema(self.encoder.dim).names)
            consents = [json.dumps(checked.consent, ensure_ascii=False)] * rows.num_rows
            allowed = [checked.permits("recognize")] * rows.num_rows
            self._store.replace(with_cards(with_columns(rows, consent=consents, recognize=allowed)))

    def forget(self, *names: str) -> int:
        """Remove people and every trace of them: name, vectors, crops, provenance, and what indexes kept of them.

        Everything else is written anew and the old files are deleted, so it takes as long as copying the gallery; to
        forget several people, name them all at once. A process that dies on the way leaves the gallery with or without
        them, and whoever opens it next completes the work. Exports and backups are not reached.

        Returns
        -------
        int
            How many templates were removed.

        Raises
        ------
        GalleryError
            If nobody is called so (reason ``unknown-person``; then nobody is forgotten), or the folder cannot be
            written (``unwritable``).
        """
        with self._store.writing():
            people = [self._id_of(name) for name in names]
            before = len(self)
            if people:
                self._store.drop_people(people)
                self._tend()
            return before - len(self)

    # -- search ------------------------------------------------------------------------------------------------------

    def search(
        self,
        vectors: npt.ArrayLike,
        k: int = 5,
        *,
        where: str | None = None,
        grouping: Grouping = "best",
        threshold: float | None = None,
        exact: bool = False,
    ) -> list[Answer]:
        """Find the people nearest to some vectors, and say whether they are near enough.

        Parameters
        ----------
        vectors
            (Q, D) or (D,) vectors of the gallery's encoder.
        k
            How many people to name for each.
        where
            Only templates for which this SQL expression over the columns ``camera``, ``date``, ``tags``, ``source``,
            ``name``, ``quality`` and ``added`` is true, such as ``"camera = 'door' AND date > timestamp '2026-01-01'"``
            or ``"array_has(tags, 'glasses')"``.
        grouping
            How several templates of a person count: ``"best"``, the nearest one; ``"mean"``, all; ``"top3"``, the
            three nearest.
        threshold
            The distance up to which somebody is known; by default see `threshold`.
        exact
            Look at every template even where there is an index.

        Returns
        -------
        list of Answer
            One for each query.

        Raises
        ------
        GalleryError
            If the filter is wrong (reason ``bad-filter``), the key is missing (``needs-key``), or the data are damaged
            (``damaged``).
        ValueError
            If shapes or values do not fit.
        """
        if k < 1:
            raise ValueError(f"Search for at least one person, not {k}.")
        plain = np.array(vectors, np.float32, ndmin=2)
        if plain.shape[0] == 0:
            return []
        queries = self._hidden(self._fitting(plain))
        scale = self.calibration(grouping)
        if threshold is None:
            threshold = scale.threshold if scale else self.encoder.threshold
            if grouping not in self._checked:
                # Once is enough, and it takes a look at the data.
                self._checked.add(grouping)
                if note := self.threshold(grouping).note:
                    warnings.warn(note, UncalibratedWarning, stacklevel=2)
        index = None if exact else self._store.record["index"]

        def match(hit: Hit) -> Match:
            return Match(
                hit.name,
                hit.distance,
                self._similarity(hit.distance),
                hit.template_id,
                threshold is not None and hit.distance <= threshold,
                scale.confidence(hit.distance) if scale else None,
                json.loads(hit.provenance),
            )

        copy = self._store.snapshot() if where is None and grouping == "best" else None
        if copy:
            found = copy.nearest_people(queries, k, self.encoder.metric)
            return [Answer(tuple(map(match, hits)), threshold) for hits in found]
        options = {"index": index, "where": where, "grouping": grouping, "metric": self.encoder.metric}
        try:
            found = self._store.search(lambda table: nearest_people(table, queries, k, **options))
        except GalleryError as error:
            if where is None or error.reason != "damaged":
                raise
            raise GalleryError(
                f"The filter {where!r} cannot be used: {error.__cause__}",
                "Filters are SQL expressions over camera, date, tags, source, name, quality and added.",
                reason="bad-filter",
            ) from error
        return [Answer(tuple(map(match, hits)), threshold) for hits in found]

    def keep_snapshot(self) -> None:
        """Make the next process's searches start at once, where the gallery is small and may be written.

        A copy of what searches need is kept beside the table and counts until the table changes, so a process that only
        searches need not start Lance, which takes seconds.
        """
        if self._store.record["index"] is None:
            self._store.keep_snapshot()

    def calibrate(self, fpir: float = 0.01, *, grouping: Grouping = "best") -> Calibration:
        """Find, and store, the threshold under which no more than a share of strangers is taken for somebody.

        Everybody in the gallery plays the stranger to all others. Vectors are read into memory for it.

        Parameters
        ----------
        fpir
            The share of strangers, over 0 and under 1, that may be taken for somebody.
        grouping
            Each grouping has a threshold of its own.

        Raises
        ------
        GalleryError
            If there are fewer than three people (reason ``too-few``), the key is missing (``needs-key``), or the folder
            cannot be written (``unwritable``).
        ValueError
            If the rate is not between 0 and 1.
        """
        rows = self._store.read(
            lambda table: table.search().where("recognize").select(["person_id", "vector"]).to_arrow()
        )
        _, person = np.unique(rows.column("person_id").to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
        order = np.argsort(person, kind="stable")
        found = calibration.calibrate(
            vectors_of(rows)[order],
            person[order],
            fpir=fpir,
            grouping=grouping,
            metric=self.encoder.metric,
            date=now(),
        )
        with self._store.writing():
            known = self._store.record["calibrations"]
            self._store.update_record(calibrations={**known, grouping: found.to_json()})
        return found

    def calibration(self, grouping: Grouping = "best") -> Calibration | None:
        """The stored calibration; None until there is one."""
        self._store.refresh()
        values = self._store.record["calibrations"].get(grouping)
        return Calibration.from_json(values) if values else None

    def threshold(self, grouping: Grouping = "best") -> Threshold:
        """Up to which distance somebody is known: the calibrated one, else that of the encoder's author."""
        found = self.calibration(grouping)
        advice = "Run Gallery.calibrate (ipse gallery calibrate)."
        if found is None:
            value = self.encoder.threshold
            if value is None:
                return Threshold(None, "none", f"There is no threshold, so everybody is unknown. {advice}")
            note = f"The threshold {value:g} is the encoder's general one, not checked for this gallery. {advice}"
            return Threshold(value, "encoder", note)
        outgrown = ""
        # Counting templates is free, counting people is not.
        if len(self) * _OUTGROWN > found.templates:
            outgrown = f"The gallery has grown since it was calibrated, so more strangers are let in. {advice}"
        return Threshold(found.threshold, "calibrated", " ".join(filter(None, (found.note, outgrown))))

    # -- moving ------------------------------------------------------------------------------------------------------

    def export(self, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> int:
        """Write people with all that belongs to them to one portable file (Parquet), the vectors in plain form.

        Parameters
        ----------
        path
            The file.
        names
            Only these people; everybody by default.

        Returns
        -------
        int
            How many templates were written.

        Raises
        ------
        GalleryError
            If somebody is unknown (reason ``unknown-person``), the key is missing (``needs-key``), or the file cannot
            be written (``unwritable``).
        """
        wanted = None if names is None else [self._id_of(name) for name in names]
        self._require_key()
        where = f"person_id IN ({', '.join(map(quoted, wanted or ['']))})" if wanted is not None else None

        def write(table: Table) -> int:
            return exchange.write(path, self.encoder, table.schema, self._plain_batches(scan(table, where)))

        return self._store.read(write)

    @classmethod
    def import_(
        cls,
        file: str | os.PathLike[str],
        path: str | os.PathLike[str],
        *,
        key: str | bytes | None = None,
        add: bool = False,
    ) -> Gallery:
        """Bring the people of an export into a gallery, which is made where there is none; all of them or none.

        Parameters
        ----------
        file
            What `export` wrote.
        path
            The gallery's folder.
        key
            The passphrase of a protected gallery, or to protect a new one.
        add
            Add to people who are there already, instead of refusing.

        Raises
        ------
        GalleryError
            If the file is no export or damaged (reason ``damaged``), a name is taken (``name-clash``), crops would go
            into a protected gallery (``needs-key``), or as `open` and `enroll`.
        FingerprintMismatch
            If the gallery belongs to another encoder.
        """
        spec, rows = exchange.read(file)
        gallery = cls.create(path, spec, key=key, exist_ok=True)
        if rows.num_rows == 0:
            return gallery
        gallery._require_key()
        if gallery.protected and rows.column("crop").null_count < rows.num_rows:
            raise GalleryError(
                "A protected gallery stores no crops, and the export holds some.",
                "Import it into a gallery without a key, or export again after removing the crops.",
                reason="needs-key",
            )
        with gallery._store.writing():
            names = rows.column("name").unique().to_pylist()
            ids = dict(zip(names, gallery._new_ids(names, add), strict=True))
            stored = gallery._hidden(vectors_of(rows))
            gallery._store.add(exchange.renumbered(rows, stored, ids))
            gallery._tend()
        return gallery

    def migrate(self, encoder: Encoder, reencode: migrate.Reencode | None = None, *, drop: bool = False) -> Migration:
        """Move the gallery to another encoder by encoding the stored crops again, in one atomic step.

        Calibrations are gone afterwards: calibrate again.

        Parameters
        ----------
        encoder
            The new encoder.
        reencode
            Takes a list of crops, (H, W, 3) uint8 RGB, and gives (N, D) vectors, with NaN where it cannot. By default
            crops of the size of the encoder's chip are taken for chips, and in others the face is looked for and
            aligned.
        drop
            Go on where templates are lost, because there is no crop or no face was found in it.

        Raises
        ------
        GalleryError
            If templates would be lost and it is not `drop` (reason ``no-crops``): names whom to enroll again.
        ValueError
            If `reencode` gives another shape.
        """
        self._require_key()
        spec = EncoderSpec.of(encoder)
        encode = reencode or migrate.crop_encoder(encoder)
        with self._store.writing():
            outcome = migrate.Outcome()
            source = self._store.read(lambda table: scan(table))
            target = schema(spec.dim)
            batches = migrate.encoded_again(source, target, spec, encode, outcome, drop)
            self._store.rewrite(target, batches, encoder=vars(spec), calibrations={}, index=None)
            self.encoder = spec
            self._tend()
        return outcome.report()

    def rekey(self, old: str | bytes | None, new: str | bytes | None) -> None:
        """Protect the vectors with another key, leaving none behind that the old one fits.

        Parameters
        ----------
        old
            The key so far; None for an unprotected gallery.
        new
            The key from now on; None to store vectors in plain form.

        Raises
        ------
        GalleryError
            If the old key is missing (reason ``needs-key``) or another (``wrong-key``), there are crops, which a
            protected gallery does not store (``needs-key``), or the folder cannot be written (``unwritable``).
        """
        dim = self.encoder.dim
        with self._store.writing():
            record = self._store.record["protection"]
            if record is not None and old is None:
                raise _key_missing(self.path)
            before = Protection.unlock(old, dim, record) if record is not None and old is not None else None
            after = Protection.new(new, dim) if new is not None else None
            table_schema = schema(dim)
            if after and self._store.read(lambda table: table.count_rows("crop IS NOT NULL")):
                raise GalleryError(
                    "A protected gallery stores no crops, and this one holds some, which would tell whom it knows.",
                    "Export it, and enroll the people into a new gallery with a key, without crops.",
                    reason="needs-key",
                )

            def turn(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
                plain = before.reveal(vectors) if before else vectors
                return after.hide(plain) if after else plain

            source = self._store.read(lambda table: scan(table))
            self._store.rewrite(
                table_schema, _turned(source, turn), protection=after.record if after else None, index=None
            )
            self._protection = after
            self._tend()

    def optimize(self) -> None:
        """Merge the files that many small enrollments left, and bring the index up to date.

        Enrolling does this by itself from time to time.

        Raises
        ------
        GalleryError
            If the folder cannot be written (reason ``unwritable``).
        """
        with self._store.writing():
            self._store.optimize()
            self._tend()

    # -- details -----------------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        before = self._store.record["index"]
        with self._store.scratch():
            after = self._store.read(lambda table: tend_index(table, before))
        if after != before:
            self._store.update_record(index=after)

    def _without_vectors(self, name: str, consent: Mapping[str, Any]) -> Identity:
        """An identity to check consent by, where no key is at hand to read the vectors."""
        return Identity(name, np.ones(1, np.float32), self.encoder.name, self.encoder.fingerprint, consent=consent)

    def _admitted(self, identity: Identity) -> Identity:
        """The identity as it goes into this gallery."""
        _require_encoder(self.encoder, identity)
        templates = self._fitting(identity.templates)
        consent = identity.consent or assumed_consent()
        return replace(identity, name=clean_name(identity.name), templates=templates, consent=consent)

    def _pictures(self, identities: Sequence[Identity], crops: Mapping[str, Sequence[Crop]]) -> list[Crop]:
        pictures: list[Crop] = []
        for identity in identities:
            theirs = crops.get(identity.name, (None,) * len(identity))
            if len(theirs) != len(identity):
                raise ValueError(f"{len(theirs)} crops for the {len(identity)} templates of {identity.name}.")
            pictures += theirs
        if self.protected and any(picture is not None for picture in pictures):
            raise GalleryError(
                "A protected gallery stores no crops: they would tell what the vectors hide.",
                "Enroll without crops, or use a gallery without a key.",
                reason="needs-key",
            )
        return pictures

    def _fitting(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Vectors of the gallery's length, finite, and of length 1 where directions are compared."""
        if rows.ndim != 2 or rows.shape[1] != self.encoder.dim:
            raise ValueError(f"{self.encoder.name} makes vectors of length {self.encoder.dim}; got shape {rows.shape}.")
        if not np.isfinite(rows).all():
            raise ValueError("Vectors hold values that are not finite.")
        if self.encoder.metric != "cosine":
            return rows
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if (lengths == 0).any():
            raise ValueError("A vector of zeros has no direction, so the cosine metric cannot use it.")
        return rows / lengths

    def _require_key(self) -> None:
        self._store.refresh()
        record = self._store.record["protection"]
        if record is None:
            self._protection = None
        elif self._protection is None:
            raise _key_missing(self.path)
        elif self._protection.record != record:
            raise GalleryError(
                f"The gallery in {self.path} got another key in the meantime.", "Open it again.", reason="wrong-key"
            )

    def _hidden(self, plain: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        self._require_key()
        return self._protection.hide(plain) if self._protection else plain

    def _plain(self, stored: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        self._require_key()
        return self._protection.reveal(stored) if self._protection else stored

    def _plain_batches(self, batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        return _turned(batches, self._plain)

    def _similarity(self, distance: float) -> float:
        return 1 - distance if self.encoder.metric == "cosine" else 1 / (1 + distance)

    def _ids(self, names: Sequence[str]) -> dict[str, str]:
        """``person_id`` by name, of those who are there."""

        def query(table: Table) -> pa.Table:
            search = table.search().select(["name", "person_id"])
            if len(names) <= _FEW:
                search = search.where(f"name IN ({', '.join(map(quoted, names))})")
            return search.to_arrow().group_by(["name", "person_id"]).aggregate([])

        rows = self._store.read(query)
        wanted = set(names)
        found = zip(rows.column("name").to_pylist(), rows.column("person_id").to_pylist(), strict=True)
        return {name: person for name, person in found if name in wanted}

    def _id_of(self, name: str) -> str:
        clean = clean_name(name)
        found = self._ids([clean])
        if clean not in found:
            near = difflib.get_close_matches(clean, self.names(), n=1)
            raise GalleryError(
                f"Nobody in {self.path} is called {clean!r}.",
                f"Did you mean {near[0]!r}?" if near else "See who is there: ipse gallery list.",
                reason="unknown-person",
            )
        return found[clean]

    def _rows_of(self, name: str, columns: list[str]) -> pa.Table:
        person = self._id_of(name)
        condition = f"person_id = {quoted(person)}"
        return self._store.read(lambda table: table.search().where(condition).select(columns).to_arrow())

    def _new_ids(self, names: Sequence[str], add: bool) -> list[str]:
        """A ``person_id`` for each name: that of whoever is called so already, else a new one."""
        taken = self._ids(list(dict.fromkeys(names)))
        if not add:
            clashes = sorted(taken) or sorted(name for name, count in Counter(names).items() if count > 1)
            if clashes:
                others = f" and {len(clashes) - 1} others" if len(clashes) > 1 else ""
                raise GalleryError(
                    f"There is somebody called {clashes[0]!r} already{others}.",
                    "If it is the same person, add to them (add=True, --add); if not, give another name.",
                    reason="name-clash",
                )
        ids = {name: taken.get(name) or secrets.token_hex(8) for name in dict.fromkeys(names)}
        return [ids[name] for name in names]


def _turned(
    batches: Iterable[pa.RecordBatch], turn: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
) -> Iterable[pa.RecordBatch]:
    """The same rows with other vectors."""
    for batch in batches:
        column = vector_column(turn(vectors_of(batch)))
        yield batch.set_column(batch.schema.get_field_index("vector"), batch.schema.field("vector"), column)


def _require_encoder(ours: EncoderSpec, theirs: EncoderSpec | Identity) -> None:
    if ours.fingerprint != theirs.fingerprint:
        name = theirs.encoder if isinstance(theirs, Identity) else theirs.name
        error = FingerprintMismatch((ours.name, ours.fingerprint), (name, theirs.fingerprint))
        error.hint = (
            "To migrate a gallery, encode its stored crops again with Gallery.migrate (ipse gallery migrate), or "
            "enroll the original images again; templates cannot be converted."
        )
        raise error


def _key_missing(path: Path) -> GalleryError:
    return GalleryError(
        f"The gallery in {path} is protected by a key.",
        "Open it with the key; without it people can only be listed and forgotten.",
        reason="needs-key",
    )
