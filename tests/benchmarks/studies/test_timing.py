from uflow_edge.benchmarks.studies.timing import Took, burst, interleaved_medians, interleaved_times


def test_contenders_take_turns_after_warming_up() -> None:
    calls: list[str] = []
    times = interleaved_times({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert {name: len(taken) for name, taken in times.items()} == {"a": 2, "b": 2}


def test_settling_calls_each_twice_and_times_the_second() -> None:
    counted = iter(range(100))
    times = interleaved_times({"a": lambda: Took(next(counted))}, 3, settle=True)
    assert times == {"a": [3000.0, 5000.0, 7000.0]}  # 0 and 1 warmed up; 2, 4 and 6 settled


def test_who_measures_itself_is_believed() -> None:
    assert interleaved_medians({"a": lambda: Took(0.25), "b": lambda: Took(1.5)}, 3) == {"a": 250.0, "b": 1500.0}


def test_a_burst_is_the_median_of_its_calls() -> None:
    seconds = iter([5.0, 1.0, 3.0])
    assert burst(lambda: Took(next(seconds)), 3)() == Took(3.0)
    seconds = iter([5.0, 1.0, 3.0])
    assert burst(lambda: Took(next(seconds)), 3, min)() == Took(1.0)
