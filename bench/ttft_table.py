"""The figures of bench/ttft.sh as Markdown, for bench/results.

    python3 bench/ttft_table.py FOLDER...
"""
import json
import pathlib
import sys


def interval(estimate, digits=2):
    return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(estimate["value"], estimate["low"], estimate["high"], d=digits)


def cells_of(mode):
    hideable = sum(c["hideable_ms"] for c in mode["collectives"])
    total = sum(c["duration_ms"] for c in mode["collectives"])
    cells = [mode["mode"], interval(mode["ttft"])]
    for key in ("speedup_over_standard_blocking", "speedup_over_blocking"):
        cells.append(interval(mode[key], 3) if key in mode else "-")
    cells += [f"{mode['ideal']:.3f}", f"{mode['possible']:.3f}"]
    cells.append(f"{100 * mode['hidden']['value']:.1f} %" if hideable > 0 else "-")
    cells.append(f"{100 * mode['hidden_all_mean']:.1f} %")
    cells += [f"{hideable:.1f} of {total:.1f}", f"{mode['efficiency']['value']:.3f}"]
    decode = mode.get("decode")
    cells.append(interval(decode["tpot"]) if decode else "-")
    cells.append(interval(decode["saved_over_blocking"]) if decode and "saved_over_blocking" in decode else "-")
    return cells


COLUMNS = ["mode", "first token, ms", "over standard-blocking", "over own blocking", "ideal", "possible", "hidden",
           "of all", "hideable ms", "efficiency", "per token, ms", "saved over own blocking"]


def verdicts(result):
    """What is asked of FarSkip's mode, one sentence each, with yes or no."""
    modes = {mode["mode"]: mode for mode in result["modes"]}
    mode = modes.get("farskip")
    if mode is None:
        return
    hidden = mode["hidden"]["value"]
    yield f"at least 97 % of the hideable all-reduce time hidden in prefill: {100 * hidden:.1f} %", hidden >= 0.97
    gain, edge = mode["speedup_over_blocking"]["value"], mode["ideal"] - mode["possible"]
    bound = mode["ideal"] - 0.02 - edge
    yield (f"speed-up over blocking at least the ideal {mode['ideal']:.3f} less 0.02 and less {edge:.3f} for "
           f"collectives without a window: {gain:.3f}"), gain >= bound
    if "decode" in mode:
        saved = mode["decode"]["saved_over_blocking"]
        yield f"decode not slower than blocking within its interval: {interval(saved)} ms saved", saved["high"] >= 0


def main():
    for folder in sys.argv[1:]:
        for path in sorted(pathlib.Path(folder).glob("*.json")):
            result = json.loads(path.read_text())
            print(f"### {path.stem}\n")
            print(f"{result['batch']} x {result['input']} tokens, {result['output']} made; {result['machine']}; layout "
                  f"{result['layout']}; routing {result['routing']}; link {result['link']}; {result['rounds']} rounds.\n")
            print("| " + " | ".join(COLUMNS) + " |")
            print("|" + "---|" * len(COLUMNS))
            for mode in result["modes"]:
                print("| " + " | ".join(cells_of(mode)) + " |")
            print()
            for sentence, holds in verdicts(result):
                print(f"- {'holds' if holds else 'MISSED'}: {sentence}")
            for remark in result["remarks"]:
                print(f"- {remark}")
            cpu = [f"{m['mode']} {m['waited']:.1f} waited, {m['cpu']:.0f} CPU, {m['transport_cpu']:.0f} of it transport"
                   for m in result["modes"]]
            print(f"- ms a prefill and rank: {'; '.join(cpu)}\n")


if __name__ == "__main__":
    main()
