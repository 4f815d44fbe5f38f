from benchmarks import examples


def test_the_cases_of_the_package_can_be_drawn_again():
    plans = examples.plans()
    assert [plan.case.group for plan in plans] == [
        "hair", "glasses", "hair+glasses", "interpolation/colour"
    ]  # fmt: skip
    for plan in plans:
        assert len(plan.attribute_sources) == len(plan.case.attributes) == len(plan.shown)
