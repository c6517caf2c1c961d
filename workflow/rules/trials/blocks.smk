use rule test as test_blocks with:
    wildcard_constraints:
        method=variants("blocks"),
    params:
        code=method_code("blocks"),
