use rule test as test_proposed with:
    wildcard_constraints:
        method=variants("proposed"),
    params:
        code=method_code("proposed"),
