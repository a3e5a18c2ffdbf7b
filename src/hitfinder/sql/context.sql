-- context: what else is known of each SKU at each moment: its age, price against its category, breadth, calendar.
-- Grain: as_of, sku_id.
-- Reads: totals, scope.
with
batch_sizes as (
    select
        as_of,
        batch_id,
        count(*) as batch_skus
    from totals
    group by as_of, batch_id
),

category_prices as (
    select
        as_of,
        batch_id,
        category,
        median(price) as category_price
    from totals
    group by as_of, batch_id, category
),

style_sizes as (
    select
        as_of,
        batch_id,
        style_id,
        count(*) as style_skus
    from totals
    group by as_of, batch_id, style_id
),

priced as (
    select
        totals.*,
        category_prices.category_price,
        style_sizes.style_skus - 1 as siblings,
        batch_sizes.batch_skus
    from totals
    inner join batch_sizes on totals.as_of = batch_sizes.as_of and totals.batch_id = batch_sizes.batch_id
    inner join category_prices
        on
            totals.as_of = category_prices.as_of
            and totals.batch_id = category_prices.batch_id
            and totals.category = category_prices.category
    inner join style_sizes
        on
            totals.as_of = style_sizes.as_of
            and totals.batch_id = style_sizes.batch_id
            and totals.style_id = style_sizes.style_id
),

described as (
    select
        priced.as_of,
        priced.sku_id,
        priced.batch_id,
        priced.style_id,
        priced.category,
        priced.launched_at,
        priced.impressions,
        priced.visitors,
        priced.clicks,
        priced.favorites,
        priced.carts,
        priced.orders,
        priced.units,
        priced.revenue,
        priced.refunds,
        priced.spend,
        priced.age_days,
        priced.is_sold_out,
        priced.age_days * 86400.0 / scope.test_seconds as age_share,
        priced.active_periods,
        priced.active_periods / greatest(priced.days * 86400.0 / scope.period_seconds, 1) as active_share,
        case when priced.last_seen_days is not null then greatest(priced.days - priced.last_seen_days, 0) end
        as quiet_days,
        priced.channels,
        priced.creatives,
        priced.siblings,
        priced.batch_skus,
        case when priced.price > 0 then ln(priced.price) end as log_price,
        case when priced.price > 0 and priced.category_price > 0 then ln(priced.price / priced.category_price) end
        as price_lead,
        extract(month from priced.as_of) as month,
        -- 0 is Sunday. Engines number weekdays differently; 1970 began on a Thursday in all of them.
        (cast(floor(epoch(priced.launched_at) / 86400.0) as bigint) + 4) % 7 as launch_weekday
    from priced
    cross join scope
)

select * from described
