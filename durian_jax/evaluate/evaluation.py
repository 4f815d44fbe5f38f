"""`durian evaluate`: cases, predictions, scores, report."""

from pathlib import Path

from tqdm import tqdm

from durian_jax.evaluate import perceptual, scores, selection, sheets
from durian_jax.evaluate import report as reports
from durian_jax.evaluate.predictions import CheckpointPredictions, FolderPredictions
from durian_jax.evaluate.protocol import Protocol
from input_pipeline.dataset.cases import Case, CaseSet
from input_pipeline.errors import InputError
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.media.files import folder_beside
from input_pipeline.media.pictures import write_picture

_PARTS = ("report.*", "cases", "predictions", "sheets")  # of the folder of a report


def write_cases(protocol: str, dataset: str | Path, out: str | Path) -> CaseSet:
    """Writes the cases of the self or cross protocol to a folder of their own, for any method.

    Raises:
      InputError: a protocol whose cases `durian synth` writes; a data set that does not suffice;
        not writable.
    """
    rules = Protocol.load(protocol)
    if rules.build is None:
        raise InputError(
            f"{protocol}: durian synth writes its cases, evaluate does not", "protocol"
        )
    with folder_beside(out, replaces="cases.json", holds=("[0-9]*",)) as beside:
        selection.write_cases(dataset, rules, beside)
    return CaseSet.read(out)


def evaluate(
    protocol: str,
    out: str | Path,
    *,
    cases: str | Path | None = None,
    dataset: str | Path | None = None,
    checkpoint: str | Path | None = None,
    predictions: str | Path | None = None,
    groups: list[str] | None = None,
    networks: list[str] | None = None,
    weights: dict[str, str] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    landmarks: str | Path | None = None,
) -> reports.Report:
    """Scores a checkpoint or a folder of predictions, and the baselines beside it.

    Args:
      protocol: counterfactual, self, cross or reenact.
      out: folder of the report, written whole or not at all; a report there is replaced.
      cases: a case folder; or dataset: DATASET/counterfactual and DATASET/reenact are such, and for
        self and cross the cases are made from the data set and kept in OUT/cases.
      checkpoint: work directory of a training run; or predictions: a folder, see
        `predictions.FolderPredictions`.
      groups: the rows of the table to score, default all.
      networks: metrics whose networks packages carry, see `perceptual`; default: those of
        `perceptual.DEFAULT` that are installed.
      weights: metric -> file or hub id of its network, see `supplied`.
      steps, guidance, seed: of the checkpoint's sampler, as in `durian animate`.
      landmarks: a Face Landmarker for the eyelids of all that is compared, and of the checkpoint's
        motion; see `FaceLandmarker`.

    Raises:
      InputError: unusable cases, predictions or weights; nothing is written then.
    """
    if (cases is None) == (dataset is None):
        raise InputError("give either cases or a dataset")
    if (checkpoint is None) == (predictions is None):
        raise InputError("give either a checkpoint or predictions")
    if predictions is not None and (steps is not None or guidance is not None):
        raise InputError("steps and guidance are for a checkpoint; predictions are made already")
    for given in (cases, predictions, checkpoint, dataset):
        if given is not None and Path(given).resolve().is_relative_to(Path(out).resolve()):
            raise InputError(
                f"{out}: would replace {given}, which lies in it: choose another", option="out"
            )
    rules = Protocol.load(protocol)
    landmarker = FaceLandmarker(landmarks)
    loaded, absent = perceptual.load(networks, weights or {})
    with folder_beside(out, replaces="report.json", holds=_PARTS) as beside:
        if cases is None and rules.build is None:
            cases = Path(dataset) / protocol
        elif cases is None:
            cases = beside / "cases"
            selection.write_cases(dataset, rules, cases)
        found = CaseSet.read(cases)
        scored = _scored(found, rules, groups)
        if predictions is not None:
            method = FolderPredictions(predictions, found, scored)
        else:
            method = CheckpointPredictions(
                checkpoint, found, beside / "predictions",
                steps=steps, guidance=guidance, seed=seed, landmarks=landmarks,
            )  # fmt: skip
        report = _score(method, found, scored, rules, loaded, landmarker, beside)
        report.absent = absent
        report.write(beside)
    return report


def _scored(found: CaseSet, protocol: Protocol, groups: list[str] | None) -> tuple[Case, ...]:
    if (found.protocol, found.version) != (protocol.name, protocol.version):
        raise InputError(
            f"{found.path}: cases of protocol {found.protocol} version {found.version}, not "
            f"{protocol.name} version {protocol.version}: make them again, or change the protocol"
        )
    for case in found.cases:
        if (case.truth, bool(case.attributes)) != (protocol.truth, protocol.attributes):
            raise InputError(
                f"{found.path}: case {case.id} does not fit protocol {protocol.name}: make the "
                "cases again"
            )
    known = sorted({case.group for case in found.cases})
    for group in groups or ():
        if group not in known:
            raise InputError(f"{group}: {found.path} has {', '.join(known)}", option="groups")
    return tuple(case for case in found.cases if not groups or case.group in groups)


def _score(
    method, found, scored, protocol, networks, landmarker: FaceLandmarker, out: Path
) -> reports.Report:
    """All predictions. Raises InputError, before the first of them, for bad cases."""
    references, problems = {}, []
    for case in tqdm(scored, "reading cases", unit="case"):
        try:
            pictures = found.load(case)
            references[case.id] = scores.find_reference(case, pictures, landmarker)
        except InputError as error:
            problems.append(str(error))
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise InputError(
            f"{found.path}: {len(problems)} unusable cases, nothing scored; make them again, or "
            f"choose other groups{lines}"
        )
    report = reports.Report(method.name, protocol, found, scored, landmarker.version)
    shown, predicted = sheets.choose(scored), method.predictions(scored)
    for case in tqdm(scored, "scoring", unit="case"):
        pictures, reference = found.load(case), references[case.id]
        predictions = {method.name: next(predicted)}
        predictions |= scores.baseline_frames(case, pictures, reference)
        for name, frames in predictions.items():
            track = scores.find_track(frames, landmarker)
            prediction = scores.Prediction(frames, track, case, pictures, reference)
            values = scores.score(prediction, protocol)
            for network in networks:
                values |= network.score(name, prediction)
            report.add(name, case, values)
        report.frames_without_reference += int((~reference.usable[case.scored_from :]).sum())
        if case in shown:
            path = out / "sheets" / f"{case.id}.png"
            write_picture(path, sheets.draw(case, pictures, predictions))
    for network in networks:
        report.add_network(network)
    report.add_method(method)
    return report
