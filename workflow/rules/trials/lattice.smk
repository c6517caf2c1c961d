use rule test as test_lattice with:
    wildcard_constraints:
        method=variants("lattice"),
    params:
        code=method_code("lattice"),
