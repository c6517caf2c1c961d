use rule test as test_lattice_blocks with:
    wildcard_constraints:
        method=variants("lattice_blocks"),
    params:
        code=method_code("lattice_blocks"),
