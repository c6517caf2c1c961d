use rule test as test_uniform with:
    wildcard_constraints:
        method=variants("uniform"),
    params:
        code=method_code("uniform"),
